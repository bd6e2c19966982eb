/** The codec in a worker, so that the page stays responsive. `client.js` calls it. */
import { bytesOf } from "../src/fetching.js";
import { Codes, MelcapError, RowTables, load, pack, unpack } from "../src/index.js";
import { logMel } from "./mel.js";

/** @import { CodesFields, Codec, Watch } from "../src/index.js" */

const SITE = new URL("../", import.meta.url);
/** @type {Promise<Codec> | undefined} */
let loading;
/** @type {Promise<RowTables> | undefined} */
let tables;

const METHODS = {
  /**
   * Load the codec, once.
   *
   * @param {{ threads: number }} options
   */
  async prepare({ threads }) {
    loading ??= loaded(threads);
    try {
      const { facts } = await loading;
      return facts;
    } catch (error) {
      loading = undefined; // the next call tries again
      throw error;
    }
  },

  /**
   * Turn audio into a file, and say how long it took.
   *
   * @param {{ waves: Float32Array[] }} input
   * @param {Watch} watch
   */
  async encode({ waves }, watch) {
    const codec = await codecHere();
    const begun = performance.now();
    const codes = await codec.encode(waves, watch);
    const milliseconds = performance.now() - begun;
    return { codes: { ...codes }, bytes: pack(codes), milliseconds };
  },

  /**
   * Read a file.
   *
   * @param {{ bytes: Uint8Array }} input
   */
  async unpack({ bytes }) {
    const codec = await codecHere();
    const compact = bytes[37] === 1; // unpack() checks everything
    if (compact) {
      tables ??= fetchedTables(codec);
    }
    try {
      return { codes: { ...unpack(bytes, { rowTables: await tables }) }, bytes };
    } catch (error) {
      tables = undefined;
      throw error;
    }
  },

  /**
   * Turn tokens into audio, and say how long it took.
   *
   * @param {{ codes: CodesFields }} input
   * @param {Watch} watch
   */
  async decode({ codes }, watch) {
    const codec = await codecHere();
    const begun = performance.now();
    const waves = await codec.decode(new Codes(codes), watch);
    return { waves, milliseconds: performance.now() - begun };
  },

  /**
   * Return the spectrogram of a wave.
   *
   * @param {{ wave: Float32Array, sampleRate: number, width: number }} input
   */
  async logMel({ wave, sampleRate, width }) {
    return logMel(wave, sampleRate, width);
  },
};

/** @type {Map<number, AbortController>} */
const running = new Map();

addEventListener("message", async ({ data: { id, method, input, abort } }) => {
  if (abort) {
    running.get(id)?.abort();
    return;
  }
  const controller = new AbortController();
  running.set(id, controller);
  const watch = {
    signal: controller.signal,
    progress: (/** @type {number} */ share) => postMessage({ id, progress: share }),
  };
  try {
    const call = METHODS[/** @type {keyof typeof METHODS} */ (method)];
    postMessage({ id, result: await call(input, watch) });
  } catch (error) {
    const { name, message } = error instanceof Error ? error : new Error(String(error));
    postMessage({ id, error: { name, message } });
  } finally {
    running.delete(id);
  }
});

/** @param {number} threads */
async function loaded(threads) {
  /** @type {import("../src/index.js").Runtime} */
  let ort;
  try {
    ort = await import(new URL("runtime/ort.wasm.bundle.min.mjs", SITE).href);
  } catch (error) {
    throw new MelcapError("The runtime could not be fetched: check the connection, and try again.", {
      cause: error,
    });
  }
  const wasm = await bytesOf(new URL("runtime/ort-wasm-simd-threaded.wasm.gz", SITE));
  Object.assign(ort.env.wasm ?? {}, { wasmBinary: wasm.buffer });
  return load({
    ort,
    threads,
    encoder: new URL("models/encoder.ort.gz", SITE),
    decoder: new URL("models/decoder.ort.gz", SITE),
    facts: new URL("models/facts.json", SITE),
  });
}

async function codecHere() {
  if (!loading) {
    throw new MelcapError("The codec is not loaded.");
  }
  return loading;
}

/** @param {Codec} codec */
async function fetchedTables(codec) {
  const bytes = await bytesOf(new URL("models/row-tables.bin.gz", SITE));
  return RowTables.fromBytes(bytes, codec.facts.rows, codec.tokenizerId);
}
