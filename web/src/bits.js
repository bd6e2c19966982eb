import { MelcapError } from "./errors.js";

/**
 * Pack tokens to bytes, most significant bit first, with zero bits at the end.
 *
 * @param {Int32Array} tokens Tokens from 0 to 2 ** bits - 1.
 * @param {number} bits The bits of a token, 1 to 16.
 * @returns {Uint8Array}
 */
export function packBits(tokens, bits) {
  const bytes = new Uint8Array(Math.ceil((tokens.length * bits) / 8));
  let [place, held, count] = [0, 0, 0];
  for (const token of tokens) {
    held = (held << bits) | token; // at most 7 + 16 bits
    count += bits;
    while (count >= 8) {
      count -= 8;
      bytes[place++] = held >>> count;
      held &= (1 << count) - 1;
    }
  }
  if (count) {
    bytes[place] = held << (8 - count);
  }
  return bytes;
}

/**
 * Return the tokens that `packBits` packed.
 *
 * @param {Uint8Array} bytes Exactly the bytes of `count` tokens.
 * @param {number} bits The bits of a token, 1 to 16.
 * @param {number} count
 * @returns {Int32Array}
 * @throws {MelcapError} Where the bits after the last token are not zero.
 */
export function unpackBits(bytes, bits, count) {
  const tokens = new Int32Array(count);
  let [place, held, available] = [0, 0, 0];
  for (let index = 0; index < count; index++) {
    while (available < bits) {
      held = (held << 8) | bytes[place++];
      available += 8;
    }
    available -= bits;
    tokens[index] = held >>> available;
    held &= (1 << available) - 1;
  }
  if (held) {
    throw new MelcapError("the unused bits after the last token are not zero");
  }
  return tokens;
}
