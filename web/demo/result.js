/** The result of a clip: figures, pictures, downloads and the player. */
import { encodeWav } from "../src/index.js";
import { bytes, clock, times } from "./format.js";
import { drawMel, drawTokens, loudest } from "./picture.js";
import { Player } from "./player.js";

/** @import { CodesFields } from "../src/index.js" */
/** @import { Mel } from "./picture.js" */

/**
 * What is shown of a clip.
 *
 * @typedef {object} Result
 * @property {string} name
 * @property {CodesFields} codes
 * @property {Uint8Array<ArrayBuffer>} file The bytes of the `.melcap` file.
 * @property {Float32Array[]} decoded
 * @property {Float32Array[]} [original] At the same sample rate; absent where tokens were chosen.
 * @property {number} sampleRate
 * @property {{ original?: Mel, decoded: Mel }} mels
 * @property {{ encode?: number, decode: number }} milliseconds
 * @property {number} threads
 * @property {number} codebookSize
 */

/**
 * Find an element of the page.
 *
 * @template {HTMLElement} [T=HTMLElement]
 * @param {string} id
 * @returns {T}
 */
export function element(id) {
  return /** @type {T} */ (document.getElementById(id));
}

const [playButton, seek, time] = [
  element("play"),
  /** @type {HTMLInputElement} */ (element("seek")),
  element("time"),
];
export const player = new Player(showPosition);
/** @type {string[]} */
const urls = [];

playButton.addEventListener("click", async () => {
  if (player.playing) {
    player.stop();
  } else {
    await player.play();
  }
  showPosition();
});
seek.addEventListener("input", () => {
  void player.seek(Number(seek.value));
  showPosition();
});
element("versions").addEventListener("change", ({ target }) => {
  player.hear(/** @type {HTMLInputElement} */ (target).value);
});

/** Show the position while the clip is played. */
function showPosition() {
  playButton.textContent = player.playing ? "Pause" : "Play";
  const { position, duration } = player;
  seek.value = String(position);
  time.textContent = `${clock(position)} of ${clock(duration)}`;
  element("playhead").style.left = `${duration ? (100 * position) / duration : 0}%`;
  if (player.playing) {
    requestAnimationFrame(showPosition);
  }
}

/** @param {Result} result */
export function show(result) {
  const { codes, decoded, original, mels, sampleRate } = result;
  element("name").textContent = result.name;
  /** @type {Record<string, Float32Array[]>} */
  const versions = original ? { original, decoded } : { decoded };
  player.take(versions, sampleRate, "decoded");
  seek.max = String(player.duration);
  for (const input of element("versions").querySelectorAll("input")) {
    input.disabled = !(input.value in versions);
    input.checked = input.value === "decoded";
  }
  showFigures(result);
  const tops = [mels.original, mels.decoded].map((mel) => (mel ? loudest(mel) : -Infinity));
  const top = Math.max(...tops);
  element("original-figure").hidden = !mels.original;
  if (mels.original) {
    drawMel(element("original-picture"), mels.original, top);
  }
  drawMel(element("decoded-picture"), mels.decoded, top);
  const { rows, columns, channels } = codes;
  const first = codes.tokens.subarray(0, rows * columns);
  drawTokens(element("token-picture"), first, rows, columns, result.codebookSize);
  element("token-caption").textContent =
    `The tokens: ${columns} columns of ${rows}, the lowest band at the bottom. ` +
    `Each colour is one of ${result.codebookSize} entries of the codebook.`;
  for (const note of document.querySelectorAll(".channel")) {
    note.textContent = channels > 1 ? ", first channel" : "";
  }
  const stem = result.name.replace(/\.[^.]*$/, "");
  urls.splice(0).forEach((url) => URL.revokeObjectURL(url));
  offer("save-melcap", result.file, `${stem}.melcap`, "application/octet-stream");
  offer("save-wav", encodeWav(decoded, sampleRate), `${stem}-decoded.wav`, "audio/wav");
  element("result").hidden = false;
  showPosition();
  element("name").focus();
}

/** @param {Result} result */
function showFigures({ codes, file, milliseconds, threads }) {
  const seconds = codes.samples / codes.sampleRate;
  const pcm = 2 * codes.channels * codes.samples;
  const kbps = (8 * file.length) / 1000 / seconds / codes.channels;
  const speed = (/** @type {number | undefined} */ value) =>
    value ? `${times((1000 * seconds) / value)} times real time` : "was not needed";
  const on = threads === 1 ? "1 thread" : `${threads} threads`;
  const figures = {
    Duration: `${seconds.toFixed(2)} s, ${codes.channels === 1 ? "mono" : `${codes.channels} channels`}`,
    "Size of the file": bytes(file.length),
    "Rate of a channel": `${kbps.toFixed(2)} kbps`,
    "As 16-bit PCM": `${bytes(pcm)}, ${times(pcm / file.length)} times as much`,
    [`Encoding, ${on}`]: speed(milliseconds.encode),
    [`Decoding, ${on}`]: speed(milliseconds.decode),
  };
  element("figures").replaceChildren(
    ...Object.entries(figures).map(([term, value]) => {
      const pair = document.createElement("div");
      const [name, figure] = [document.createElement("dt"), document.createElement("dd")];
      name.textContent = term;
      figure.textContent = value;
      pair.append(name, figure);
      return pair;
    }),
  );
}

/**
 * @param {string} id
 * @param {Uint8Array<ArrayBuffer>} data
 * @param {string} name
 * @param {string} type
 */
function offer(id, data, name, type) {
  const url = URL.createObjectURL(new Blob([data], { type }));
  urls.push(url);
  const link = /** @type {HTMLAnchorElement} */ (element(id));
  link.href = url;
  link.download = name;
}
