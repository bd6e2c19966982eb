/** The codec around the graphs, with a runtime of the tests' own whose graphs are simple. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { gzipSync } from "node:zlib";
import { Codes, MelcapError, load } from "../src/index.js";

const FACTS = {
  model: "tiny",
  tokenizer_id: "0123456789abcdef",
  sample_rate: 44100,
  column_samples: 4,
  rows: 2,
  codebook_size: 1000,
  silence: [0, 0],
  encoder_context: /** @type {[number, number]} */ ([3, 2]),
  decoder_context: /** @type {[number, number]} */ ([2, 3]),
};

/**
 * A runtime whose graphs compute sums over their context. A column's token is the number of samples
 * above zero from 3 columns before it to 2 after it, and one more in the second row. A column's
 * samples are the sum of its first row from 2 columns before it to 3 after it, in thousands.
 */
function runtime() {
  /** @type {{ shapes: number[][], active: number, most: number, released: string[], fail?: string }} */
  const log = { shapes: [], active: 0, most: 0, released: [] };
  const sums = (/** @type {number[]} */ values, /** @type {number} */ before, /** @type {number} */ after) =>
    values.map((_, index) =>
      values.slice(Math.max(0, index - before), index + after + 1).reduce((sum, value) => sum + value, 0),
    );
  const encode = (/** @type {any} */ { data }) => {
    const columns = Math.ceil(data.length / 4);
    const counts = Array.from({ length: columns }, (_, column) =>
      data.slice(4 * column, 4 * column + 4).filter((/** @type {number} */ sample) => sample > 0).length,
    );
    const row = sums(counts, 3, 2);
    return Int32Array.from([...row, ...row.map((token) => token + 1)]);
  };
  const decode = (/** @type {any} */ { data, dims }) => {
    const row = sums([...data.slice(0, dims[2])], 2, 3);
    return Float32Array.from(row.flatMap((sum) => [sum, sum, sum, sum].map((value) => value / 1000)));
  };
  const graphs = /** @type {Record<string, any>} */ ({ e: ["wave", encode], d: ["tokens", decode] });
  const ort = {
    env: { wasm: { numThreads: 0 } },
    Tensor: class {
      constructor(/** @type {string} */ type, /** @type {any} */ data, /** @type {number[]} */ dims) {
        Object.assign(this, { type, data, dims });
      }
    },
    InferenceSession: {
      async create(/** @type {Uint8Array} */ bytes) {
        const name = new TextDecoder().decode(bytes);
        if (!(name in graphs)) {
          throw new Error("protobuf parsing failed");
        }
        const [input, call] = graphs[name];
        return {
          inputNames: [input],
          outputNames: ["out"],
          async run(/** @type {any} */ feeds) {
            log.most = Math.max(log.most, ++log.active);
            log.shapes.push(feeds[input].dims);
            await new Promise((resolve) => setTimeout(resolve, 1));
            log.active--;
            if (log.fail) {
              throw new Error(log.fail);
            }
            return { out: { data: call(feeds[input]) } };
          },
          async release() {
            log.released.push(name);
          },
        };
      },
    },
  };
  return { ort: /** @type {any} */ (ort), log };
}

const graph = (/** @type {string} */ name) => new TextEncoder().encode(name);
const noise = (/** @type {number} */ length, seed = 1) =>
  Float32Array.from({ length }, (_, index) => Math.sin(index * index * 0.37 + seed));

async function loaded() {
  const { ort, log } = runtime();
  const codec = await load({ ort, encoder: graph("e"), decoder: graph("d"), facts: FACTS, threads: 3 });
  assert.equal(ort.env.wasm.numThreads, 3);
  return { codec, log };
}

/** The tokens of a whole wave, as the runtime's encoder gives them without pieces. */
async function whole(/** @type {Float32Array} */ wave) {
  const { ort } = runtime();
  const session = await ort.InferenceSession.create(graph("e"));
  return (await session.run({ wave: { data: wave, dims: [1, wave.length] } })).out.data;
}

test("pieces give the tokens and the samples of the whole clip", async () => {
  const { codec, log } = await loaded();
  for (const samples of [1, 4, 5, 1023, 1024, 1025, 2500, 4 * 256 * 3]) {
    const waves = [noise(samples), noise(samples, 2)];
    log.shapes.length = 0;
    const codes = await codec.encode(waves);
    assert.equal(codes.columns, Math.ceil(samples / 4));
    assert.equal(log.shapes.length, 2 * Math.ceil(codes.columns / 256));
    assert.ok(log.shapes.every(([batch, length]) => batch === 1 && length <= 4 * (256 + 5)));
    for (const [index, wave] of waves.entries()) {
      assert.deepEqual(codes.channel(index), await whole(wave));
    }
    const [first, second] = await codec.decode(codes);
    assert.equal(first.length, samples);
    const row = [...codes.channel(1).slice(0, codes.columns)];
    second.forEach((sample, index) => {
      const column = Math.floor(index / 4);
      const near = row.slice(Math.max(0, column - 2), column + 4);
      assert.equal(sample, Math.fround(near.reduce((sum, token) => sum + token, 0) / 1000));
    });
  }
});

test("codes say what made them", async () => {
  const { codec } = await loaded();
  const codes = await codec.encode([noise(10)]);
  const { model, tokenizerId, sampleRate, samples, bits, channelAxis, seconds } = codes;
  assert.deepEqual(
    { model, tokenizerId, sampleRate, samples, bits, channelAxis },
    {
      model: "tiny",
      tokenizerId: "0123456789abcdef",
      sampleRate: 44100,
      samples: 10,
      bits: 10,
      channelAxis: true,
    },
  );
  assert.equal(seconds, 10 / 44100);
});

test("progress rises to one, and a signal stops before the next piece", async () => {
  const { codec, log } = await loaded();
  /** @type {number[]} */
  const shares = [];
  const waves = [noise(4 * 600), noise(4 * 600)];
  const codes = await codec.encode(waves, { progress: (share) => shares.push(share) });
  assert.deepEqual(
    shares.map((share) => Math.round(1e9 * 6 * share) / 1e9),
    [0, 1, 2, 3, 4, 5, 6],
  );
  for (const call of [
    (/** @type {any} */ watch) => codec.encode(waves, watch),
    (/** @type {any} */ watch) => codec.decode(codes, watch),
  ]) {
    const controller = new AbortController();
    log.shapes.length = 0;
    const progress = (/** @type {number} */ share) => share > 0.2 && controller.abort();
    await assert.rejects(call({ signal: controller.signal, progress }), { name: "AbortError" });
    assert.equal(log.shapes.length, 3, "the piece that was begun is the last");
  }
});

test("calls at the same time wait for each other", async () => {
  const { codec, log } = await loaded();
  const waves = [noise(3000), noise(2000, 5), noise(1000, 9)];
  const found = await Promise.all(waves.map((wave) => codec.encode([wave])));
  assert.equal(log.most, 1);
  for (const [index, wave] of waves.entries()) {
    assert.deepEqual(found[index].tokens, await whole(wave));
  }
});

test("a run that fails says so, and the next one works", async () => {
  const { codec, log } = await loaded();
  log.fail = "std::bad_alloc";
  await assert.rejects(codec.encode([noise(10)]), /ONNX Runtime failed \(std::bad_alloc\): if memory/);
  log.fail = undefined;
  assert.equal((await codec.encode([noise(10)])).columns, 3);
});

test("audio that is no audio is refused", async () => {
  const { codec } = await loaded();
  /** @type {[any, RegExp][]} */
  const bad = [
    [noise(10), /an array with a Float32Array for each channel/],
    [[[0.1, 0.2]], /an array with a Float32Array/],
    [[], /1 to 64 channels, not 0/],
    [Array(65).fill(noise(1)), /not 65/],
    [[new Float32Array()], /at least one, not 0/],
    [[noise(3), noise(4)], /equally many samples, at least one, not 3, 4/],
    [[noise(3), Float32Array.of(0, NaN, 0)], /channel 1 has samples that are not finite/],
    [[Float32Array.of(0, -Infinity, 0)], /channel 0 has samples/],
  ];
  for (const [waves, reason] of bad) {
    await assert.rejects(codec.encode(waves), reason);
  }
});

test("tokens that the weights cannot decode are refused", async () => {
  const { codec } = await loaded();
  const codes = await codec.encode([noise(10)]);
  /** @type {[any, RegExp][]} */
  const bad = [
    [{ tokenizerId: "f".repeat(16), model: "large" }, /of tokenizer f{16} \(made by large\), but the weights here are tiny with tokenizer 0123456789abcdef/],
    [{ rows: 3, columns: 2 }, /have 3 rows, and the codec has 2/],
    [{ tokens: Int32Array.of(1, 2, 1000, 4, 5, 6) }, /token 1000 is not in the codebook \(0 to 999\)/],
    [{ samples: 13 }, /has 3 columns, but 13 samples at 44100 Hz need 4/],
    [{ sampleRate: 88200 }, /has 3 columns, but 10 samples at 88200 Hz need 2/],
  ];
  for (const [change, reason] of bad) {
    await assert.rejects(codec.decode(new Codes({ ...codes, ...change })), reason);
  }
});

test("tokens of another sample rate decode to the codec's own", async () => {
  const { codec } = await loaded();
  const codes = new Codes({ ...(await codec.encode([noise(10)])), samples: 19, sampleRate: 88200 });
  const [wave] = await codec.decode(codes);
  assert.equal(wave.length, 10, "ceil(19 / 2)");
});

test("sequences of a language model become codes", async () => {
  const { codec } = await loaded();
  const codes = codec.codesOf([
    [1, 4, 2, 5, 3, 6],
    Int32Array.of(7, 10, 8, 11, 9, 12),
  ]);
  assert.deepEqual([...codes.tokens], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
  assert.equal(codes.samples, 12);
  assert.deepEqual(codes.flatten().map((one) => [...one])[0], [1, 4, 2, 5, 3, 6]);
  for (const bad of [[], [[]], [[1]], [[1, 2], [1, 2, 3, 4]], [[1, 2, 3]]]) {
    assert.throws(() => codec.codesOf(bad), /same whole number of columns of 2 tokens/);
  }
});

test("a disposed codec says so", async () => {
  const { codec, log } = await loaded();
  const last = assert.rejects(codec.encode([noise(4 * 600)]), /was disposed/);
  await new Promise((resolve) => setTimeout(resolve, 0));
  await codec.dispose();
  await last;
  assert.equal(log.shapes.length, 1, "the piece that was begun is the last");
  assert.deepEqual(log.released.sort(), ["d", "e"]);
  await assert.rejects(codec.encode([noise(10)]), /was disposed/);
});

test("a codec without an encoder decodes", async () => {
  const { ort } = runtime();
  const facts = new TextEncoder().encode(JSON.stringify(FACTS));
  const codec = await load({ ort, decoder: graph("d"), facts });
  assert.equal((await codec.decode(codec.codesOf([[1, 2]])))[0].length, 4);
  await assert.rejects(codec.encode([noise(10)]), /loaded without an encoder/);
});

test("gzipped files are unpacked, and damaged ones are refused", async () => {
  const { ort } = runtime();
  const decoder = new Uint8Array(gzipSync(graph("d")));
  const facts = new Uint8Array(gzipSync(JSON.stringify(FACTS)));
  const codec = await load({ ort, decoder: decoder.buffer, facts });
  assert.equal(codec.facts.rows, 2);
  const cut = decoder.slice(0, -9);
  await assert.rejects(load({ ort, decoder: cut, facts }), /gzipped file is damaged .*: fetch it again/);
});

test("files that cannot be fetched or are something else are named", async () => {
  const { ort } = runtime();
  const url = "http://127.0.0.1:9/decoder.ort";
  await assert.rejects(load({ ort, decoder: url, facts: FACTS }), (error) => {
    assert.ok(error instanceof MelcapError);
    assert.match(error.message, /127\.0\.0\.1:9\/decoder\.ort could not be fetched .*try again/);
    return true;
  });
  const decoder = graph("d");
  await assert.rejects(load({ ort, decoder: graph("x"), facts: FACTS }), /cannot load the decoder: protobuf/);
  await assert.rejects(
    load({ ort, decoder, encoder: graph("x"), facts: FACTS }),
    /cannot load the encoder: protobuf/,
  );
  await assert.rejects(load({ ort, decoder, facts: graph("{") }), /the facts are not JSON/);
  for (const [name, value] of Object.entries({
    rows: 0,
    tokenizer_id: "x",
    silence: 3,
    encoder_context: [1],
    decoder_context: [1, -1],
    model: undefined,
  })) {
    const facts = /** @type {any} */ ({ ...FACTS, [name]: value });
    await assert.rejects(load({ ort, decoder, facts }), new RegExp(`not the facts .*: ${name} is`));
  }
  const signal = AbortSignal.abort();
  await assert.rejects(load({ ort, decoder: url, facts: FACTS, signal }), { name: "AbortError" });
});
