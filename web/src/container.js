/**
 * The bytes of a `.melcap` file, as `melcap.io.container` in Python describes them: a header, and
 * tokens that are packed to the bit or coded compactly.
 */
import { packBits, unpackBits } from "./bits.js";
import { Codes, swapped } from "./codes.js";
import { MelcapError } from "./errors.js";
import { fileBytes, takeFile } from "./header.js";
import { decode, encode } from "./range_coder.js";

/** @import { Header } from "./header.js" */
/** @import { RowTables } from "./row_tables.js" */

/**
 * Return the bytes of a `.melcap` file.
 *
 * @param {Codes} codes
 * @param {object} [options]
 * @param {RowTables} [options.rowTables] The row tables of the tokenizer. With them the file becomes
 *   compact, about a tenth smaller. Where they make it no smaller, the tokens are packed.
 * @returns {Uint8Array}
 * @throws {MelcapError} For row tables of another tokenizer or another number of rows, and for a
 *   token that is not in them.
 *
 * @example
 * const bytes = pack(await codec.encode([wave]));
 */
export function pack(codes, { rowTables } = {}) {
  const { channels, rows, columns } = codes;
  const packed = packBits(swapped(codes.tokens, channels, rows, columns, [0, 2, 1]), codes.bits);
  if (rowTables) {
    checkTables(rowTables, codes);
    const byRow = swapped(codes.tokens, channels, rows, columns, [1, 0, 2]);
    const coded = encode(byRow, rowTables);
    if (coded.length < packed.length) {
      return fileBytes(codes, coded, rowTables.checksum);
    }
  }
  return fileBytes(codes, packed);
}

/**
 * Return the tokens in the bytes of a `.melcap` file.
 *
 * @param {Uint8Array} bytes
 * @param {object} [options]
 * @param {RowTables} [options.rowTables] The row tables of the tokenizer, which compact files need.
 * @returns {Codes}
 * @throws {MelcapError} For bytes that are no `.melcap` file, or were altered, or are compact
 *   without the right row tables.
 *
 * @example
 * const codes = unpack(new Uint8Array(await file.arrayBuffer()));
 */
export function unpack(bytes, { rowTables } = {}) {
  if (!(bytes instanceof Uint8Array)) {
    throw new MelcapError("the bytes of a .melcap file must be a Uint8Array");
  }
  const { header, data, tables } = takeFile(bytes);
  const { channels, rows, columns } = header;
  if (tables === undefined) {
    const byTime = unpackBits(data, header.bits, channels * rows * columns);
    return new Codes({ ...header, tokens: swapped(byTime, channels, columns, rows, [0, 2, 1]) });
  }
  if (rowTables?.checksum !== tables) {
    throw new MelcapError(
      `the file is compact, and needs the row tables of tokenizer ${header.tokenizerId} with ` +
        `checksum ${hexadecimal(tables)}`,
    );
  }
  checkTables(rowTables, header);
  const byRow = decode(data, rowTables, channels * columns);
  return new Codes({ ...header, tokens: swapped(byRow, rows, channels, columns, [1, 0, 2]) });
}

/**
 * Refuse row tables of another tokenizer, or for another grid.
 *
 * @param {RowTables} tables
 * @param {Header} header
 */
function checkTables(tables, { tokenizerId, rows }) {
  if (tables.tokenizerId !== tokenizerId) {
    throw new MelcapError(
      `the row tables are of tokenizer ${tables.tokenizerId}, not ${tokenizerId}`,
    );
  }
  if (tables.rows !== rows) {
    throw new MelcapError(`the row tables are for ${tables.rows} rows of tokens, not ${rows}`);
  }
}

/** @param {number} checksum */
function hexadecimal(checksum) {
  return checksum.toString(16).padStart(8, "0");
}
