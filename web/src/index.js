/** melcap in JavaScript: audio to tokens and back, and the `.melcap` file. */
export { decodeAudio, encodeWav, resample } from "./wave.js";
export { Codec, load } from "./codec.js";
export { Codes } from "./codes.js";
export { pack, unpack } from "./container.js";
export { MelcapError } from "./errors.js";
export { RowTables } from "./row_tables.js";

/**
 * @typedef {import("./codec.js").Runtime} Runtime
 * @typedef {import("./codec.js").Watch} Watch
 * @typedef {import("./codes.js").CodesFields} CodesFields
 * @typedef {import("./facts.js").Facts} Facts
 * @typedef {import("./fetching.js").Source} Source
 */
