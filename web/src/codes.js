import { MelcapError } from "./errors.js";
import { checkHeader } from "./header.js";

/**
 * The values that make `Codes`.
 *
 * @typedef {object} CodesFields
 * @property {Int32Array} tokens The tokens, [channels, rows, columns] in row-major order. Row 0 is
 *   the lowest band, and columns follow time.
 * @property {number} channels
 * @property {number} rows
 * @property {number} columns
 * @property {number} samples The samples of each channel, at `sampleRate`.
 * @property {number} sampleRate The sample rate of the original in Hz.
 * @property {string} tokenizerId The tokenizer of the tokens, 16 hexadecimal digits. All weights of
 *   this tokenizer decode them.
 * @property {string} [model] The name of the weights that made the tokens, for information.
 * @property {number} [bits] The bits of a token in a file; without it, what the largest token takes.
 * @property {boolean} [channelAxis] False for one channel that is written without an axis of channels.
 */

/**
 * The tokens of one clip.
 *
 * @example
 * const codes = unpack(bytes);
 * codes.rows; // 12
 * codes.flatten()[0]; // the first channel as a sequence for a language model
 */
export class Codes {
  /**
   * @param {CodesFields} fields
   * @throws {MelcapError} Where a value is outside its bounds, or the values do not fit together.
   */
  constructor(fields) {
    const { tokens } = fields;
    if (!(tokens instanceof Int32Array)) {
      throw new MelcapError("tokens must be an Int32Array");
    }
    const [smallest, largest] = range(tokens);
    const header = {
      ...fields,
      model: fields.model ?? "unknown",
      bits: fields.bits ?? Math.max(1, 32 - Math.clz32(largest)),
      channelAxis: fields.channelAxis ?? true,
    };
    checkHeader(header);
    const { channels, rows, columns, bits } = header;
    if (tokens.length !== channels * rows * columns) {
      throw new MelcapError(
        `${channels} x ${rows} x ${columns} tokens were expected, not ${tokens.length}`,
      );
    }
    if (smallest < 0 || largest >= 2 ** bits) {
      const token = smallest < 0 ? smallest : largest;
      throw new MelcapError(`token ${token} does not fit ${bits} bits (0 to ${2 ** bits - 1})`);
    }
    this.tokens = tokens;
    this.channels = channels;
    this.rows = rows;
    this.columns = columns;
    this.samples = header.samples;
    this.sampleRate = header.sampleRate;
    this.tokenizerId = header.tokenizerId;
    this.model = header.model;
    this.bits = bits;
    this.channelAxis = header.channelAxis;
    Object.freeze(this);
  }

  /** The duration of the clip in seconds. */
  get seconds() {
    return this.samples / this.sampleRate;
  }

  /**
   * Return the tokens of one channel, [rows, columns] in row-major order.
   *
   * @param {number} index
   * @returns {Int32Array} A view of `tokens`.
   */
  channel(index) {
    const size = this.rows * this.columns;
    return this.tokens.subarray(index * size, (index + 1) * size);
  }

  /**
   * Return each channel as a sequence for a language model: column by column, and within a column
   * from the lowest row to the highest.
   *
   * @returns {Int32Array[]}
   */
  flatten() {
    return Array.from({ length: this.channels }, (_, index) =>
      swapped(this.channel(index), 1, this.rows, this.columns, [0, 2, 1]),
    );
  }
}

/**
 * Return an array of three axes with its axes in another order.
 *
 * @param {Int32Array} values [first, second, third] in row-major order.
 * @param {number} first
 * @param {number} second
 * @param {number} third
 * @param {[number, number, number]} order The axes in the order of the result.
 * @returns {Int32Array} A new array in row-major order.
 */
export function swapped(values, first, second, third, order) {
  const sizes = [first, second, third];
  const strides = [second * third, third, 1];
  const [size, step] = [order.map((axis) => sizes[axis]), order.map((axis) => strides[axis])];
  const result = new Int32Array(values.length);
  let place = 0;
  for (let i = 0; i < size[0]; i++) {
    for (let j = 0; j < size[1]; j++) {
      for (let k = 0; k < size[2]; k++) {
        result[place++] = values[i * step[0] + j * step[1] + k * step[2]];
      }
    }
  }
  return result;
}

/**
 * Return the smallest and the largest of some tokens.
 *
 * @param {Int32Array} tokens
 * @returns {[number, number]}
 */
function range(tokens) {
  let [smallest, largest] = [Infinity, 0];
  for (const token of tokens) {
    smallest = Math.min(smallest, token);
    largest = Math.max(largest, token);
  }
  return [smallest, largest];
}
