/** The audio that a visitor chooses, and what this page can take. */
import { bytesOf } from "../src/fetching.js";
import { MelcapError, decodeAudio } from "../src/index.js";
import { clock } from "./format.js";

/** Seconds of the longest clip: 10 minutes, or 2 on a phone, whose memory is small. */
export const LONGEST = isPhone() ? 120 : 600;

/** @typedef {{ name: string, waves: Float32Array[] }} Audio */
/** @typedef {{ name: string, bytes: Uint8Array }} Tokens */

/** The error for audio of more channels than the page plays. `mix` is its mean over the channels. */
export class ManyChannels extends MelcapError {
  /** @param {Audio} audio */
  constructor({ name, waves }) {
    super(
      `${name} has ${waves.length} channels, and this page takes one or two: code a mix of them, or ` +
        "use the melcap command, which codes all.",
    );
    /** @type {Audio} */
    this.mix = { name, waves: [mixed(waves)] };
  }
}

/** Return whether the page runs on a phone or a tablet. */
export function isPhone() {
  const { userAgent, userAgentData, maxTouchPoints } = /** @type {any} */ (navigator);
  const tablet = /Macintosh/.test(userAgent) && maxTouchPoints > 1; // what an iPad calls itself
  return Boolean(userAgentData?.mobile) || /Android|iPhone|iPad/.test(userAgent) || tablet;
}

/**
 * Return one of the clips of this site.
 *
 * @param {string} name
 * @param {number} sampleRate
 * @param {AbortSignal} signal
 * @returns {Promise<Audio>}
 */
export async function clip(name, sampleRate, signal) {
  const bytes = await bytesOf(new URL(`../clips/${name}.flac`, import.meta.url), signal);
  return { name: `${name}.flac`, waves: await decodeAudio(bytes, sampleRate) };
}

/**
 * Read a file: audio, or tokens by melcap.
 *
 * @param {File} file
 * @param {number} sampleRate
 * @returns {Promise<Audio | Tokens>}
 * @throws {MelcapError} For a file that is too long, or that the browser cannot decode.
 */
export async function read(file, sampleRate) {
  const start = new Uint8Array(await file.slice(0, 6).arrayBuffer());
  if (String.fromCharCode(...start) === "MELCAP") {
    if (file.size > 2000 * LONGEST) {
      throw new MelcapError(
        `${file.name} holds more tokens than ${clock(LONGEST)} of stereo, the most that this page takes: ` +
          "use melcap decode, which takes any length.",
      );
    }
    return { name: file.name, bytes: new Uint8Array(await file.arrayBuffer()) };
  }
  checkLength(file.name, await durationOf(file));
  const bytes = new Uint8Array(await file.arrayBuffer());
  /** @type {Float32Array[]} */
  let waves;
  try {
    waves = await decodeAudio(bytes, sampleRate);
  } catch (error) {
    throw new MelcapError(
      `${file.name} cannot be decoded by this browser: choose a WAV, FLAC, MP3 or Ogg file, or ` +
        "convert it with the melcap command.",
      { cause: error },
    );
  }
  return checked({ name: file.name, waves }, sampleRate);
}

/**
 * Return audio that is not too long and has one or two channels.
 *
 * @param {Audio} audio
 * @param {number} sampleRate
 */
export function checked(audio, sampleRate) {
  const [wave] = audio.waves;
  if (!wave?.length) {
    throw new MelcapError(`${audio.name} holds no audio: choose another file.`);
  }
  checkLength(audio.name, wave.length / sampleRate);
  if (audio.waves.length > 2) {
    throw new ManyChannels(audio);
  }
  return audio;
}

/**
 * @param {string} name
 * @param {number} seconds
 */
export function checkLength(name, seconds) {
  if (seconds > LONGEST + 1) {
    throw new MelcapError(
      `${name} is ${clock(seconds)} long, and this page takes up to ${clock(LONGEST)}: choose a shorter ` +
        "file, or use the melcap command, which takes any length.",
    );
  }
}

/**
 * Return the duration of a file in seconds, or 0 where its metadata does not tell. A long file is
 * thus refused before it is decoded, which takes a gigabyte for three hours.
 *
 * @param {File} file
 * @returns {Promise<number>}
 */
function durationOf(file) {
  const url = URL.createObjectURL(file);
  const audio = new Audio();
  audio.preload = "metadata";
  const duration = new Promise((resolve) => {
    audio.addEventListener("loadedmetadata", () => resolve(audio.duration));
    audio.addEventListener("error", () => resolve(0));
    audio.src = url;
  });
  return duration
    .then((seconds) => (Number.isFinite(seconds) ? seconds : 0))
    .finally(() => URL.revokeObjectURL(url));
}

/** @param {Float32Array[]} waves */
function mixed(waves) {
  return waves[0].map((_, index) => {
    return waves.reduce((sum, wave) => sum + wave[index], 0) / waves.length;
  });
}
