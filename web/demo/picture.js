/** Pictures of spectrograms and tokens. */
import { MELS } from "./mel.js";

/** Anchors of the colour maps magma and viridis of Matplotlib, evenly spaced. */
const MAGMA = ["000004", "1d1147", "51127c", "832681", "b73779", "e75263", "fc8961", "fec488", "fcfdbf"];
const VIRIDIS = ["440154", "472d7b", "3b528b", "2c728e", "21918c", "28ae80", "5ec962", "addc30", "fde725"];
/** The quietest value that is drawn, below the loudest: 80 dB. */
const RANGE = (80 * Math.LN10) / 20;

/** @typedef {{ values: Float32Array, frames: number }} Mel Values [frames, mels]. */

/**
 * Return the largest value of a spectrogram.
 *
 * @param {Mel} mel
 */
export function loudest({ values }) {
  return values.reduce((most, value) => Math.max(most, value), -Infinity);
}

/**
 * Draw a spectrogram, with the lowest band at the bottom.
 *
 * @param {HTMLCanvasElement} canvas
 * @param {Mel} mel
 * @param {number} top The value of the brightest colour.
 */
export function drawMel(canvas, { values, frames }, top) {
  draw(canvas, frames, MELS, MAGMA, (x, y) => 1 - (top - values[x * MELS + MELS - 1 - y]) / RANGE);
}

/**
 * Draw a grid of tokens, with row 0 at the bottom.
 *
 * @param {HTMLCanvasElement} canvas
 * @param {Int32Array} tokens [rows, columns]
 * @param {number} rows
 * @param {number} columns
 * @param {number} size The size of the codebook.
 */
export function drawTokens(canvas, tokens, rows, columns, size) {
  draw(canvas, columns, rows, VIRIDIS, (x, y) => tokens[(rows - 1 - y) * columns + x] / (size - 1));
}

/**
 * Draw shares from 0 to 1 in the colours of a map.
 *
 * @param {HTMLCanvasElement} canvas
 * @param {number} width
 * @param {number} height
 * @param {string[]} colours
 * @param {(x: number, y: number) => number} share
 */
function draw(canvas, width, height, colours, share) {
  const anchors = colours.map((colour) => Number.parseInt(colour, 16));
  canvas.width = width;
  canvas.height = height;
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  const image = context.createImageData(width, height);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const place = Math.max(0, Math.min(1, share(x, y))) * (anchors.length - 1);
      const index = Math.min(Math.floor(place), anchors.length - 2);
      const [low, high, part] = [anchors[index], anchors[index + 1], place - index];
      const at = 4 * (y * width + x);
      for (const [channel, shift] of [16, 8, 0].entries()) {
        const [a, b] = [(low >> shift) & 255, (high >> shift) & 255];
        image.data[at + channel] = a + (b - a) * part;
      }
      image.data[at + 3] = 255;
    }
  }
  context.putImageData(image, 0, 0);
}
