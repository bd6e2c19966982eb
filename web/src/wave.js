/** Waves and files of audio. Decoding and resampling are the browser's own. */
import { MelcapError, messageOf } from "./errors.js";

/**
 * Decode a file of audio; in browsers only.
 *
 * Browsers read WAV, FLAC, MP3 and Ogg, and some read more. They resample to the rate that is asked
 * for. At the file's own rate, WAV and FLAC give the samples that melcap in Python reads: Chromium
 * divides positive samples of integer formats by 32767 instead of 32768, which is undone here.
 *
 * @param {Uint8Array} bytes
 * @param {number} sampleRate The rate of the result in Hz.
 * @returns {Promise<Float32Array[]>} One array for each channel.
 * @throws {MelcapError} For bytes that the browser cannot decode.
 *
 * @example
 * const waves = await decodeAudio(new Uint8Array(await file.arrayBuffer()), codec.sampleRate);
 */
export async function decodeAudio(bytes, sampleRate) {
  const { integerBits, rate } = storedAs(bytes);
  let buffer;
  try {
    buffer = await decoded(bytes, sampleRate);
  } catch (error) {
    throw new MelcapError(
      "the browser cannot decode this file: use WAV, FLAC, MP3 or Ogg, or convert it with FFmpeg",
      { cause: error },
    );
  }
  const waves = Array.from({ length: buffer.numberOfChannels }, (_, index) =>
    buffer.getChannelData(index),
  );
  if (integerBits && rate === sampleRate && (await scalesHalvesApart())) {
    const largest = 2 ** (integerBits - 1);
    for (const wave of waves) {
      wave.forEach((sample, index) => {
        if (sample > 0) {
          wave[index] = Math.round(sample * (largest - 1)) / largest;
        }
      });
    }
  }
  return waves;
}

/**
 * Resample audio to a length; in browsers only.
 *
 * @param {Float32Array[]} waves One array for each channel.
 * @param {number} from The rate of the audio in Hz.
 * @param {number} to The rate of the result in Hz.
 * @param {number} samples The samples of each channel of the result.
 * @returns {Promise<Float32Array[]>}
 * @throws {MelcapError} For a rate that the browser does not have.
 */
export async function resample(waves, from, to, samples) {
  if (from === to) {
    return waves.map((wave) => {
      const fitted = new Float32Array(samples);
      fitted.set(wave.subarray(0, samples));
      return fitted;
    });
  }
  try {
    const context = new OfflineAudioContext(waves.length, samples, to);
    const buffer = context.createBuffer(waves.length, waves[0].length, from);
    waves.forEach((wave, index) => buffer.getChannelData(index).set(wave));
    const source = new AudioBufferSourceNode(context, { buffer });
    source.connect(context.destination);
    source.start();
    const rendered = await context.startRendering();
    return waves.map((_, index) => rendered.getChannelData(index));
  } catch (error) {
    throw new MelcapError(
      `the browser cannot resample ${from} Hz to ${to} Hz (${messageOf(error)})`,
      { cause: error },
    );
  }
}

/**
 * Return audio as a WAV file of 16-bit samples.
 *
 * @param {Float32Array[]} waves One array for each channel, of equal lengths. Samples beyond -1 to 1
 *   are clipped.
 * @param {number} sampleRate The sample rate in Hz.
 * @returns {Uint8Array<ArrayBuffer>}
 */
export function encodeWav(waves, sampleRate) {
  const channels = waves.length;
  const size = 2 * channels * waves[0].length;
  const view = new DataView(new ArrayBuffer(44 + size));
  const text = (/** @type {number} */ at, /** @type {string} */ value) =>
    [...value].forEach((letter, index) => view.setUint8(at + index, letter.charCodeAt(0)));
  text(0, "RIFF");
  view.setUint32(4, 36 + size, true);
  text(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true); // integers
  view.setUint16(22, channels, true);
  view.setUint32(24, sampleRate, true);
  view.setUint32(28, 2 * channels * sampleRate, true);
  view.setUint16(32, 2 * channels, true);
  view.setUint16(34, 16, true);
  text(36, "data");
  view.setUint32(40, size, true);
  waves.forEach((wave, channel) =>
    wave.forEach((sample, index) => {
      const value = Math.max(-32768, Math.min(32767, Math.round(sample * 32768)));
      view.setInt16(44 + 2 * (index * channels + channel), value, true);
    }),
  );
  return new Uint8Array(view.buffer);
}

/**
 * Return the bits of integer samples, and the rate, of a WAV or FLAC file; nothing for others.
 *
 * @param {Uint8Array} bytes
 * @returns {{ integerBits?: number, rate?: number }}
 */
function storedAs(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const tag = (/** @type {number} */ at) => String.fromCharCode(...bytes.subarray(at, at + 4));
  if (tag(0) === "fLaC" && bytes.length >= 26) {
    const packed = view.getUint32(18); // 20 bits of rate, 3 of channels, 5 of sample size, 4 more
    const bits = ((packed >>> 4) & 31) + 1;
    return { integerBits: bits <= 16 ? 16 : undefined, rate: packed >>> 12 };
  }
  if (tag(0) !== "RIFF" || tag(8) !== "WAVE") {
    return {};
  }
  for (let at = 12; at + 8 <= bytes.length; ) {
    const size = view.getUint32(at + 4, true);
    if (tag(at) === "fmt " && at + 24 <= bytes.length) {
      const [format, bits] = [view.getUint16(at + 8, true), view.getUint16(at + 22, true)];
      const extensible = format === 0xfffe && size >= 26 && at + 34 <= bytes.length;
      const own = extensible ? view.getUint16(at + 32, true) : format;
      const logarithmic = own === 6 || own === 7; // decoded to 16 bits
      const integerBits = logarithmic ? 16 : own === 1 && bits <= 16 ? bits : undefined;
      return { integerBits, rate: view.getUint32(at + 12, true) };
    }
    at += 8 + size + (size % 2);
  }
  return {};
}

/**
 * @param {Uint8Array} bytes
 * @param {number} sampleRate
 * @returns {Promise<AudioBuffer>}
 */
function decoded(bytes, sampleRate) {
  // decodeAudioData takes the buffer away from its owner.
  return new OfflineAudioContext(1, 1, sampleRate).decodeAudioData(bytes.slice().buffer);
}

/** Return whether the browser divides positive samples by another number than negative ones. */
async function scalesHalvesApart() {
  const largest = new Float32Array([32767 / 32768]);
  const buffer = await decoded(encodeWav([largest], 44100), 44100);
  return buffer.getChannelData(0)[0] === 1;
}
