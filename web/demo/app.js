/** The page: what a visitor chooses goes through the codec, and the result is shown. */
import { MelcapError, messageOf } from "../src/errors.js";
import { resample } from "../src/index.js";
import { Client } from "./client.js";
import { clock } from "./format.js";
import { record } from "./recorder.js";
import { element, player, show } from "./result.js";
import { LONGEST, ManyChannels, checkLength, checked, clip, isPhone, read } from "./sources.js";

/** @import { Audio, Tokens } from "./sources.js" */

const RATE = 44100;
/** The columns of a picture of a spectrogram, at most. */
const WIDTH = 1200;
/** More threads need a page that is isolated from other origins; a phone has little memory. */
const THREADS =
  globalThis.crossOriginIsolated && !isPhone() ? Math.min(4, navigator.hardwareConcurrency) : 1;

/** @type {Client | undefined} */
let client;
/** Stops what is under way; the button Cancel calls it. */
let cancel = () => {};
let busy = false;

element("limit").textContent = `${LONGEST / 60} minutes`;

/**
 * Run a job, of which there is one at a time, and show its error if it fails.
 *
 * @param {(signal: AbortSignal) => Promise<void>} work
 */
async function run(work) {
  const controller = new AbortController();
  cancel = () => controller.abort();
  player.stop();
  element("alert").hidden = true;
  setBusy(true);
  try {
    await work(controller.signal);
    say("Done.");
  } catch (error) {
    say("");
    if (!controller.signal.aborted) {
      fail(error, work);
    }
  } finally {
    setBusy(false);
  }
}

/** @param {boolean} now */
function setBusy(now) {
  busy = now;
  for (const control of element("choices").querySelectorAll("button, input")) {
    /** @type {HTMLButtonElement | HTMLInputElement} */ (control).disabled = busy;
  }
  element("drop").classList.toggle("disabled", busy);
  element("progress").hidden = !busy;
  element("cancel").hidden = !busy;
  element("cancel").textContent = "Cancel";
}

/** @param {string} text */
function say(text) {
  element("status").textContent = text;
}

/** @param {number} [share] What is done, from 0 to 1; absent where that is not known. */
function advance(share) {
  const bar = /** @type {HTMLProgressElement} */ (element("progress"));
  if (share) {
    bar.value = share;
  } else {
    bar.removeAttribute("value");
  }
}

/**
 * Show an error, and what can be done about it.
 *
 * @param {unknown} error
 * @param {(signal: AbortSignal) => Promise<void>} work
 */
function fail(error, work) {
  const button = element("action");
  element("message").textContent = messageOf(error);
  button.hidden = error instanceof MelcapError && !/try again/i.test(error.message);
  button.textContent = "Try again";
  button.onclick = () => run(work);
  if (error instanceof ManyChannels) {
    button.hidden = false;
    button.textContent = "Code a mix";
    button.onclick = () => run((signal) => code(error.mix, signal));
  }
  element("alert").hidden = false;
}

/**
 * Send audio or tokens through the codec, and show the result.
 *
 * @param {Audio | Tokens} chosen
 * @param {AbortSignal} signal
 */
async function code(chosen, signal) {
  requireBrowser();
  const worker = (client ??= new Client());
  const watch = { signal, progress: advance };
  advance();
  say("Loading the codec …");
  const facts = await worker.call("prepare", { threads: THREADS }, { signal });
  let encoded;
  if ("waves" in chosen) {
    say("Encoding …");
    encoded = await worker.call("encode", { waves: chosen.waves }, watch);
  } else {
    encoded = await unpacked(worker, chosen);
  }
  const { codes } = encoded;
  advance();
  say("Decoding …");
  const made = await worker.call("decode", { codes }, watch);
  advance();
  say("Drawing …");
  const original = "waves" in chosen ? chosen.waves : undefined;
  const mel = (/** @type {Float32Array[]} */ [wave]) =>
    worker.call("logMel", { wave, sampleRate: RATE, width: WIDTH }, { signal });
  const mels = { original: original && (await mel(original)), decoded: await mel(made.waves) };
  show({
    name: chosen.name,
    codes,
    file: encoded.bytes,
    decoded: await resample(made.waves, RATE, codes.sampleRate, codes.samples),
    original,
    sampleRate: codes.sampleRate,
    mels,
    milliseconds: { encode: encoded.milliseconds, decode: made.milliseconds },
    threads: THREADS,
    codebookSize: facts.codebook_size,
  });
}

/**
 * Read tokens, and refuse more than the page takes.
 *
 * @param {Client} worker
 * @param {Tokens} chosen
 */
async function unpacked(worker, { name, bytes }) {
  let result;
  try {
    result = await worker.call("unpack", { bytes });
  } catch (error) {
    throw new MelcapError(`${name} cannot be read: ${messageOf(error)}`, { cause: error });
  }
  const { samples, sampleRate, channels } = result.codes;
  checkLength(name, samples / sampleRate);
  if (channels > 2) {
    throw new MelcapError(
      `${name} has ${channels} channels, and this page plays one or two: use melcap decode.`,
    );
  }
  return result;
}

function requireBrowser() {
  const missing = ["WebAssembly", "DecompressionStream", "OfflineAudioContext", "Worker"].filter(
    (name) => !(name in globalThis),
  );
  if (missing.length) {
    throw new MelcapError(
      `This browser has no ${missing.join(" and no ")}, which the codec needs: update it, or use another.`,
    );
  }
}

for (const button of element("choices").querySelectorAll("[data-clip]")) {
  const name = /** @type {HTMLElement} */ (button).dataset.clip ?? "";
  button.addEventListener("click", () =>
    run(async (signal) => {
      requireBrowser();
      say("Fetching the clip …");
      await code(await clip(name, RATE, signal), signal);
    }),
  );
}

/** @param {File | undefined} file */
function take(file) {
  if (file && !busy) {
    run(async (signal) => {
      requireBrowser();
      say(`Reading ${file.name} …`);
      await code(await read(file, RATE), signal);
    });
  }
}

const input = /** @type {HTMLInputElement} */ (element("file"));
input.addEventListener("change", () => {
  take(input.files?.[0]);
  input.value = ""; // the same file may be chosen again
});
addEventListener("dragover", (event) => {
  event.preventDefault();
  element("drop").classList.add("over");
});
addEventListener("dragleave", () => element("drop").classList.remove("over"));
addEventListener("drop", (event) => {
  event.preventDefault();
  element("drop").classList.remove("over");
  take(event.dataTransfer?.files[0]);
});

element("record").addEventListener("click", () =>
  run(async (signal) => {
    requireBrowser();
    say("Waiting for the microphone …");
    const stop = new AbortController();
    const cancelJob = cancel;
    cancel = () => stop.abort();
    element("cancel").textContent = "Stop";
    const wave = await record(RATE, LONGEST, stop.signal, (seconds) =>
      say(`Recording: ${clock(seconds)}`),
    );
    cancel = cancelJob;
    element("cancel").textContent = "Cancel";
    await code(checked({ name: "recording.wav", waves: [wave] }, RATE), signal);
  }),
);
element("cancel").addEventListener("click", () => cancel());
