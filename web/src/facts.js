import { MelcapError, messageOf } from "./errors.js";
import { bytesOf } from "./fetching.js";

/** @import { Source } from "./fetching.js" */

/**
 * What `melcap export --onnx` says about its graphs, in `facts.json`.
 *
 * @typedef {object} Facts
 * @property {string} model The name of the weights.
 * @property {string} tokenizer_id The tokenizer of the tokens, 16 hexadecimal digits.
 * @property {number} sample_rate The sample rate of the codec in Hz.
 * @property {number} column_samples The samples of one column of tokens.
 * @property {number} rows The tokens of one column.
 * @property {number} codebook_size The number of codebook entries; tokens are below it.
 * @property {number[]} silence The tokens of a column of silence.
 * @property {[number, number]} encoder_context The columns before and after a piece that the encoder
 *   needs to give the tokens of the whole clip.
 * @property {[number, number]} decoder_context The same for the decoder.
 */

/** @type {(value: unknown) => boolean} */
const isText = (value) => typeof value === "string";
/** @type {(value: unknown) => boolean} */
const isCount = (value) => Number.isInteger(value) && Number(value) > 0;
/** @type {(value: unknown, length?: number) => boolean} */
const areCounts = (value, length) =>
  Array.isArray(value) &&
  (length ?? value.length) === value.length &&
  value.every((entry) => Number.isInteger(entry) && entry >= 0);

/** @type {Record<keyof Facts, (value: unknown) => boolean>} */
const EXPECTED = {
  model: isText,
  tokenizer_id: (value) => /^[0-9a-f]{16}$/.test(String(value)),
  sample_rate: isCount,
  column_samples: isCount,
  rows: isCount,
  codebook_size: isCount,
  silence: (value) => areCounts(value),
  encoder_context: (value) => areCounts(value, 2),
  decoder_context: (value) => areCounts(value, 2),
};

/**
 * Return facts, read from a file where they are not at hand, and checked.
 *
 * @param {Facts | Source} source
 * @param {AbortSignal} [signal]
 * @returns {Promise<Facts>}
 * @throws {MelcapError} For a file that cannot be fetched, or is no `facts.json`.
 */
export async function factsOf(source, signal) {
  const facts = isSource(source) ? parsed(await bytesOf(source, signal)) : source;
  for (const [name, fits] of Object.entries(EXPECTED)) {
    const value = facts?.[/** @type {keyof Facts} */ (name)];
    if (!fits(value)) {
      throw new MelcapError(
        `these are not the facts of melcap's graphs: ${name} is ${JSON.stringify(value)}; ` +
          "melcap export --onnx writes them as facts.json",
      );
    }
  }
  return facts;
}

/**
 * @param {Facts | Source} source
 * @returns {source is Source}
 */
function isSource(source) {
  return (
    typeof source === "string" ||
    source instanceof URL ||
    source instanceof ArrayBuffer ||
    source instanceof Uint8Array
  );
}

/**
 * @param {Uint8Array} bytes
 * @returns {Facts}
 */
function parsed(bytes) {
  try {
    return JSON.parse(new TextDecoder().decode(bytes));
  } catch (error) {
    throw new MelcapError(`the facts are not JSON: ${messageOf(error)}`, { cause: error });
  }
}
