import { crc32 } from "./crc32.js";
import { MelcapError } from "./errors.js";

/** The least bits that a token takes with any row tables. */
export const LEAST_BITS = 2;
const TOTAL = 2 ** (16 + LEAST_BITS);

/**
 * The frequency of each codebook entry in each row of the grid. Compact files are coded with it.
 */
export class RowTables {
  /**
   * @param {Uint16Array} frequencies [rows, codebook size] in row-major order; each row adds up to
   *   2 ** 18.
   * @param {number} rows
   * @param {string} tokenizerId The tokenizer whose tokens were counted.
   * @throws {MelcapError} For a number of entries that is no power of two from 8 to 65536, zeros,
   *   and another sum.
   */
  constructor(frequencies, rows, tokenizerId) {
    const size = frequencies.length / rows;
    if (!(rows >= 1 && rows <= 1024 && size >= 8 && size <= 65536 && Math.log2(size) % 1 === 0)) {
      throw new MelcapError(
        `row tables have 1 to 1024 rows of a power of two from 8 to 65536 entries, not ${rows} rows ` +
          `of ${size}`,
      );
    }
    /** For each row, the sum of the frequencies before each entry, and the sum of all. */
    this.starts = Array.from({ length: rows }, (_, row) => {
      const starts = new Uint32Array(size + 1);
      for (let token = 0; token < size; token++) {
        starts[token + 1] = starts[token] + frequencies[row * size + token];
      }
      return starts;
    });
    const positive = frequencies.every((frequency) => frequency > 0);
    if (!positive || this.starts.some((starts) => starts[size] !== TOTAL)) {
      throw new MelcapError(
        `the frequencies of each row must be positive and add up to ${TOTAL}`,
      );
    }
    this.rows = rows;
    this.size = size;
    this.tokenizerId = tokenizerId;
    /** The CRC-32 of the frequencies as little-endian bytes, which compact files contain. */
    this.checksum = crc32(littleEndian(frequencies));
  }

  /**
   * Read row tables from little-endian bytes.
   *
   * @param {Uint8Array} bytes 16-bit frequencies, row after row.
   * @param {number} rows
   * @param {string} tokenizerId The tokenizer whose tokens were counted.
   * @returns {RowTables}
   * @throws {MelcapError} As the constructor, and for an odd number of bytes.
   */
  static fromBytes(bytes, rows, tokenizerId) {
    if (bytes.length % 2) {
      throw new MelcapError(`row tables have an even number of bytes, not ${bytes.length}`);
    }
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    const frequencies = Uint16Array.from({ length: bytes.length / 2 }, (_, index) =>
      view.getUint16(2 * index, true),
    );
    return new RowTables(frequencies, rows, tokenizerId);
  }
}

/**
 * @param {Uint16Array} values
 * @returns {Uint8Array}
 */
function littleEndian(values) {
  const view = new DataView(new ArrayBuffer(2 * values.length));
  values.forEach((value, index) => view.setUint16(2 * index, value, true));
  return new Uint8Array(view.buffer);
}
