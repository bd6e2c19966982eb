/**
 * A range coder for tokens, with row tables as probabilities. It gives the bytes of
 * `melcap.io.container.range_coder` in Python, which describes it.
 */
import { MelcapError } from "./errors.js";

/** @import { RowTables } from "./row_tables.js" */

const SHARE_BITS = 24n;
const SCALE = 64n; // shares of 2 ** 24 for frequencies of 2 ** 18
const WORD = 2n ** 32n - 1n;
const STATE = 2n ** 64n - 1n;

/**
 * Code tokens [rows, count] in row-major order.
 *
 * @param {Int32Array} tokens
 * @param {RowTables} tables
 * @returns {Uint8Array} Words of 32 bits, little-endian.
 * @throws {MelcapError} For a token that is not in the tables.
 */
export function encode(tokens, tables) {
  const count = tokens.length / tables.rows;
  /** @type {number[]} */
  const words = [];
  let [lower, width] = [0n, STATE];
  tables.starts.forEach((starts, row) => {
    for (const token of tokens.subarray(row * count, (row + 1) * count)) {
      if (token >= tables.size) {
        throw new MelcapError(`the row tables are for tokens from 0 to ${tables.size - 1}`);
      }
      const share = (width >> SHARE_BITS) * SCALE;
      lower += share * BigInt(starts[token]);
      width = share * BigInt(starts[token + 1] - starts[token]);
      if (lower > STATE) {
        carry(words);
        lower &= STATE;
      }
      if (width <= WORD) {
        words.push(Number(lower >> 32n));
        lower = (lower << 32n) & STATE;
        width <<= 32n;
      }
    }
  });
  const end = lower + WORD;
  if (end > STATE) {
    carry(words);
  }
  const last = (end >> 32n) & WORD;
  words.push(Number(last));
  if (((lower + width) & STATE) >> 32n === last) {
    words.push(0);
  }
  const view = new DataView(new ArrayBuffer(4 * words.length));
  words.forEach((word, index) => view.setUint32(4 * index, word, true));
  return new Uint8Array(view.buffer);
}

/**
 * Return the tokens [rows, count] in row-major order that `encode` coded.
 *
 * @param {Uint8Array} bytes
 * @param {RowTables} tables
 * @param {number} count
 * @returns {Int32Array}
 * @throws {MelcapError} For bytes that `encode` does not make of any such tokens.
 */
export function decode(bytes, tables, count) {
  if (!bytes.length || bytes.length % 4) {
    throw new MelcapError(`the token data has ${bytes.length} bytes, not a positive multiple of 4`);
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const given = bytes.length / 4;
  let place = 0;
  // Zeros follow the last word; at most one word of them is needed.
  const word = () => {
    if (place > given) {
      throw new MelcapError("the token data ends before the last token");
    }
    const index = place++;
    return index < given ? BigInt(view.getUint32(4 * index, true)) : 0n;
  };
  let [lower, width, point] = [0n, STATE, (word() << 32n) | word()];
  const tokens = new Int32Array(tables.rows * count);
  tables.starts.forEach((starts, row) => {
    for (let index = 0; index < count; index++) {
      const share = (width >> SHARE_BITS) * SCALE;
      const token = lastAtMost(starts, ((point - lower) & STATE) / share);
      if (token === tables.size) {
        throw new MelcapError("the token data cannot have been coded with these row tables");
      }
      lower = (lower + share * BigInt(starts[token])) & STATE;
      width = share * BigInt(starts[token + 1] - starts[token]);
      if (width <= WORD) {
        lower = (lower << 32n) & STATE;
        width <<= 32n;
        point = ((point << 32n) & STATE) | word();
      }
      tokens[row * count + index] = token;
    }
  });
  const last = ((lower + WORD) & STATE) >> 32n;
  const zeros = ((lower + width) & STATE) >> 32n === last ? 1 : 0;
  if (point !== last << 32n || given + 1 - place !== zeros) {
    throw new MelcapError("the token data does not end with the last token");
  }
  return tokens;
}

/**
 * Add one to the number that the words represent.
 *
 * @param {number[]} words
 */
function carry(words) {
  let place = words.length - 1;
  while (words[place] === 0xffffffff) {
    words[place--] = 0;
  }
  words[place]++;
}

/**
 * Return the index of the last start that is not above a value.
 *
 * @param {Uint32Array} starts Ascending, from 0.
 * @param {bigint} value
 * @returns {number}
 */
function lastAtMost(starts, value) {
  let [low, high] = [0, starts.length];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (BigInt(starts[middle]) <= value) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return low;
}
