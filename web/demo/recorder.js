/** Recording from a microphone, without the lossy codec of MediaRecorder. */
import { MelcapError, messageOf } from "../src/errors.js";

/** Sentences for the reasons why there is no microphone. */
const REASONS = new Map([
  ["NotAllowedError", "This page may not use the microphone: allow it in the browser's settings for this site."],
  ["NotFoundError", "No microphone was found: connect one, or choose a file."],
  ["NotReadableError", "The microphone is in use by another program: close that, and try again."],
]);

/**
 * Record one channel until the signal is given, or until `seconds` have passed.
 *
 * @param {number} sampleRate
 * @param {number} seconds
 * @param {AbortSignal} stop
 * @param {(seconds: number) => void} progress Called with the seconds that were recorded.
 * @returns {Promise<Float32Array>}
 * @throws {MelcapError} Where there is no microphone.
 */
export async function record(sampleRate, seconds, stop, progress) {
  const stream = await microphone();
  const context = new AudioContext({ sampleRate });
  try {
    await context.audioWorklet.addModule(new URL("recorder_worklet.js", import.meta.url));
    const node = new AudioWorkletNode(context, "recorder", { numberOfOutputs: 0, channelCount: 1 });
    /** @type {Float32Array[]} */
    const blocks = [];
    let samples = 0;
    const finished = new Promise((resolve) => {
      stop.addEventListener("abort", resolve);
      stream.getAudioTracks()[0].addEventListener("ended", resolve);
      node.port.addEventListener("message", ({ data }) => {
        blocks.push(data);
        samples += data.length;
        progress(samples / sampleRate);
        if (samples >= seconds * sampleRate) {
          resolve(undefined);
        }
      });
    });
    node.port.start();
    context.createMediaStreamSource(stream).connect(node);
    await finished;
    const wave = new Float32Array(samples);
    let at = 0;
    for (const block of blocks) {
      wave.set(block, at);
      at += block.length;
    }
    return wave;
  } catch (error) {
    throw new MelcapError(`The microphone cannot be recorded here (${messageOf(error)}): choose a file.`, {
      cause: error,
    });
  } finally {
    stream.getTracks().forEach((track) => track.stop());
    await context.close();
  }
}

async function microphone() {
  try {
    return await navigator.mediaDevices.getUserMedia({
      audio: {
        channelCount: 1,
        echoCancellation: false,
        noiseSuppression: false,
        autoGainControl: false,
      },
    });
  } catch (error) {
    const name = error instanceof DOMException ? error.name : "";
    const reason = REASONS.get(name) ?? `There is no microphone (${messageOf(error)}): choose a file.`;
    throw new MelcapError(reason, { cause: error });
  }
}
