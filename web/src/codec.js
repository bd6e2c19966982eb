import { Codes, swapped } from "./codes.js";
import { MelcapError, messageOf } from "./errors.js";
import { factsOf } from "./facts.js";
import { bytesOf } from "./fetching.js";
import { piecesOf } from "./pieces.js";

/** @import { InferenceSession, Tensor } from "onnxruntime-common" */
/** @import { Facts } from "./facts.js" */
/** @import { Source } from "./fetching.js" */

/** The columns computed at once, about 12 seconds. Smaller pieces compute more context. */
const PIECE = 256;

/**
 * The module of an ONNX Runtime: `onnxruntime-web`, or another package with its interface.
 *
 * @typedef {object} Runtime
 * @property {{ create(bytes: Uint8Array): Promise<InferenceSession> }} InferenceSession
 * @property {any} Tensor
 * @property {{ wasm?: { numThreads?: number } }} env
 */

/**
 * How a call reports on itself and is stopped.
 *
 * @typedef {object} Watch
 * @property {(share: number) => void} [progress] Called with the share that is done, from 0 to 1.
 * @property {AbortSignal} [signal] Stops the call before its next piece of 12 seconds.
 */

/**
 * Load a codec.
 *
 * @param {object} options
 * @param {Runtime} options.ort The module of ONNX Runtime: `await import("onnxruntime-web/wasm")`.
 * @param {Source} [options.encoder] `encoder.ort` or `encoder.onnx`: a URL or bytes, gzipped or not.
 *   Without it the codec can only decode.
 * @param {Source} options.decoder `decoder.ort` or `decoder.onnx`, likewise.
 * @param {Facts | Source} options.facts `facts.json`: parsed, a URL, or bytes.
 * @param {number} [options.threads] The threads of ONNX Runtime. More than one needs a page that is
 *   isolated from other origins.
 * @param {AbortSignal} [options.signal] Stops loading.
 * @returns {Promise<Codec>}
 * @throws {MelcapError} Where a file cannot be fetched, is not what it should be, or the runtime does
 *   not start.
 *
 * @example
 * import * as ort from "onnxruntime-web/wasm";
 * import { load } from "melcap";
 * const codec = await load({
 *   ort,
 *   encoder: "models/encoder.ort.gz",
 *   decoder: "models/decoder.ort.gz",
 *   facts: "models/facts.json",
 * });
 */
export async function load({ ort, encoder, decoder, facts, threads = 1, signal }) {
  const [told, ...files] = await Promise.all([
    factsOf(facts, signal),
    bytesOf(decoder, signal),
    ...(encoder === undefined ? [] : [bytesOf(encoder, signal)]),
  ]);
  if (ort.env.wasm) {
    ort.env.wasm.numThreads = threads;
  }
  const sessions = [];
  for (const [index, bytes] of files.entries()) {
    signal?.throwIfAborted();
    try {
      sessions.push(await ort.InferenceSession.create(bytes));
    } catch (error) {
      throw new MelcapError(
        `ONNX Runtime cannot load the ${index ? "encoder" : "decoder"}: ${messageOf(error)}`,
        { cause: error },
      );
    }
  }
  return new Codec(ort, told, sessions[0], sessions[1]);
}

/** A codec, which turns audio into tokens and tokens into audio. `load` makes one. */
export class Codec {
  /** @type {Promise<unknown>} */
  #last = Promise.resolve();
  #disposed = false;

  /**
   * @param {Runtime} ort
   * @param {Facts} facts
   * @param {InferenceSession} decoder
   * @param {InferenceSession} [encoder]
   */
  constructor(ort, facts, decoder, encoder) {
    this.ort = ort;
    this.facts = facts;
    this.decoder = decoder;
    this.encoder = encoder;
  }

  /** The sample rate of the codec in Hz. */
  get sampleRate() {
    return this.facts.sample_rate;
  }

  /** The tokenizer whose tokens the codec makes and reads. */
  get tokenizerId() {
    return this.facts.tokenizer_id;
  }

  /**
   * Return the tokens of audio at the codec's sample rate.
   *
   * @param {Float32Array[]} waves One array for each channel, of equal lengths. Samples beyond -1 to
   *   1 are clipped.
   * @param {Watch} [watch]
   * @returns {Promise<Codes>}
   * @throws {MelcapError} For audio that is empty, of unequal lengths or not finite.
   *
   * @example
   * const codes = await codec.encode([left, right]);
   */
  async encode(waves, { progress, signal } = {}) {
    const encoder = this.encoder;
    if (!encoder) {
      throw new MelcapError("this codec was loaded without an encoder: give load() one");
    }
    const samples = checkedLength(waves);
    const { rows, column_samples: unit, encoder_context: context } = this.facts;
    const columns = Math.ceil(samples / unit);
    const pieces = piecesOf(columns, PIECE, context);
    const tokens = new Int32Array(waves.length * rows * columns);
    for (const [channel, wave] of waves.entries()) {
      for (const [index, { begin, end, first, last }] of pieces.entries()) {
        await otherTasks();
        signal?.throwIfAborted();
        progress?.((channel + index / pieces.length) / waves.length);
        const given = wave.slice(first * unit, last * unit);
        const found = await this.#run(encoder, "float32", given, [1, given.length]);
        for (let row = 0; row < rows; row++) {
          const from = row * (last - first) - first;
          const own = found.subarray(from + begin, from + end);
          tokens.set(own, (channel * rows + row) * columns + begin);
        }
      }
    }
    progress?.(1);
    return new Codes({
      tokens,
      channels: waves.length,
      rows,
      columns,
      samples,
      sampleRate: this.sampleRate,
      tokenizerId: this.tokenizerId,
      model: this.facts.model,
      bits: Math.ceil(Math.log2(this.facts.codebook_size)),
    });
  }

  /**
   * Return the audio of tokens at the codec's sample rate, whatever that of the original was.
   *
   * @param {Codes} codes
   * @param {Watch} [watch]
   * @returns {Promise<Float32Array[]>} One array for each channel, of the length of the original.
   * @throws {MelcapError} For tokens of another tokenizer, or of a grid that does not fit.
   *
   * @example
   * const [left, right] = await codec.decode(unpack(bytes));
   */
  async decode(codes, { progress, signal } = {}) {
    const samples = this.#checkedSamples(codes);
    const { rows, column_samples: unit, decoder_context: context } = this.facts;
    const { channels, columns } = codes;
    const pieces = piecesOf(columns, PIECE, context);
    const waves = [];
    for (let channel = 0; channel < channels; channel++) {
      const wave = new Float32Array(columns * unit);
      for (const [index, { begin, end, first, last }] of pieces.entries()) {
        await otherTasks();
        signal?.throwIfAborted();
        progress?.((channel + index / pieces.length) / channels);
        const given = new Int32Array(rows * (last - first));
        for (let row = 0; row < rows; row++) {
          const own = codes.channel(channel).subarray(row * columns + first, row * columns + last);
          given.set(own, row * (last - first));
        }
        const found = await this.#run(this.decoder, "int32", given, [1, rows, last - first]);
        wave.set(found.subarray((begin - first) * unit, (end - first) * unit), begin * unit);
      }
      waves.push(wave.slice(0, samples));
    }
    progress?.(1);
    return waves;
  }

  /**
   * Return the codes of tokens that a language model generated.
   *
   * @param {ArrayLike<number>[]} sequences One sequence for each channel, of whole columns: column by
   *   column, and within a column from the lowest row to the highest, as `Codes.flatten` returns.
   * @returns {Codes} Codes as long as their columns.
   * @throws {MelcapError} For sequences of unequal lengths, and for columns that are not whole.
   */
  codesOf(sequences) {
    const { rows, column_samples: unit, model } = this.facts;
    const columns = (sequences[0]?.length ?? 0) / rows;
    if (!columns || !sequences.every(({ length }) => length === columns * rows) || columns % 1) {
      const lengths = sequences.map(({ length }) => length).join(", ");
      throw new MelcapError(
        `each sequence must hold the same whole number of columns of ${rows} tokens; the lengths ` +
          `are ${lengths || "none"}`,
      );
    }
    const tokens = new Int32Array(sequences.length * rows * columns);
    sequences.forEach((sequence, index) => {
      const grid = swapped(Int32Array.from(sequence), 1, columns, rows, [0, 2, 1]);
      tokens.set(grid, index * grid.length);
    });
    return new Codes({
      tokens,
      channels: sequences.length,
      rows,
      columns,
      samples: columns * unit,
      sampleRate: this.sampleRate,
      tokenizerId: this.tokenizerId,
      model,
    });
  }

  /**
   * Free the memory of the codec, which cannot be used afterwards. Calls that are under way fail
   * after their current piece.
   */
  async dispose() {
    this.#disposed = true;
    await this.#last;
    await Promise.all([this.decoder.release(), this.encoder?.release()]);
  }

  /**
   * Return the samples that codes decode to, after checking that this codec can decode them.
   *
   * @param {Codes} codes
   * @returns {number}
   */
  #checkedSamples(codes) {
    const { tokenizer_id, model, rows, column_samples, codebook_size, sample_rate } = this.facts;
    if (codes.tokenizerId !== tokenizer_id) {
      throw new MelcapError(
        `these tokens are of tokenizer ${codes.tokenizerId} (made by ${codes.model}), but the ` +
          `weights here are ${model} with tokenizer ${tokenizer_id}: load weights of that tokenizer`,
      );
    }
    if (codes.rows !== rows) {
      throw new MelcapError(`the tokens have ${codes.rows} rows, and the codec has ${rows}`);
    }
    const beyond = codes.tokens.find((token) => token >= codebook_size);
    if (beyond !== undefined) {
      throw new MelcapError(`token ${beyond} is not in the codebook (0 to ${codebook_size - 1})`);
    }
    const product = BigInt(codes.samples) * BigInt(sample_rate);
    const rate = BigInt(codes.sampleRate);
    const samples = Number((product + rate - 1n) / rate);
    const columns = Math.ceil(samples / column_samples);
    if (columns !== codes.columns) {
      throw new MelcapError(
        `the clip has ${codes.columns} columns, but ${codes.samples} samples at ` +
          `${codes.sampleRate} Hz need ${columns}`,
      );
    }
    return samples;
  }

  /**
   * Run a graph, after the runs that were asked for before: sessions run one at a time.
   *
   * @param {InferenceSession} session
   * @param {"float32" | "int32"} type
   * @param {Float32Array | Int32Array} data
   * @param {number[]} shape
   * @returns {Promise<any>} The data of the one output.
   */
  #run(session, type, data, shape) {
    const result = this.#last.then(async () => {
      if (this.#disposed) {
        throw new MelcapError("the codec was disposed: load another");
      }
      /** @type {Record<string, Tensor>} */
      const feeds = { [session.inputNames[0]]: new this.ort.Tensor(type, data, shape) };
      try {
        return (await session.run(feeds))[session.outputNames[0]].data;
      } catch (error) {
        throw new MelcapError(
          `ONNX Runtime failed (${messageOf(error)}): if memory ran out, close other pages and use ` +
            "a shorter clip",
          { cause: error },
        );
      }
    });
    this.#last = result.catch(() => undefined);
    return result;
  }
}

/**
 * Let other tasks of this thread run, such as the message that aborts a signal. A run of a graph in
 * WebAssembly does not.
 */
function otherTasks() {
  return new Promise((resolve) => setTimeout(resolve));
}

/**
 * Return the samples of a clip, after checking its channels.
 *
 * @param {Float32Array[]} waves
 */
function checkedLength(waves) {
  if (!Array.isArray(waves) || !waves.every((wave) => wave instanceof Float32Array)) {
    throw new MelcapError("audio must be an array with a Float32Array for each channel");
  }
  if (waves.length < 1 || waves.length > 64) {
    throw new MelcapError(`audio must have 1 to 64 channels, not ${waves.length}`);
  }
  const [{ length }] = waves;
  if (!length || waves.some((wave) => wave.length !== length)) {
    const lengths = waves.map((wave) => wave.length).join(", ");
    throw new MelcapError(`channels must hold equally many samples, at least one, not ${lengths}`);
  }
  const bad = waves.findIndex((wave) => !wave.every(Number.isFinite));
  if (bad >= 0) {
    throw new MelcapError(`channel ${bad} has samples that are not finite numbers`);
  }
  return length;
}
