/** The container against Python's bytes: what it reads, writes and refuses. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { Codes, MelcapError, RowTables, pack, unpack } from "../src/index.js";
import { decode, encode } from "../src/range_coder.js";

const FIXTURES = new URL("./fixtures/", import.meta.url); // written by fixtures.py
const json = (/** @type {string} */ name) =>
  JSON.parse(readFileSync(new URL(name, FIXTURES), "utf8"));
const binary = (/** @type {string} */ text) => new Uint8Array(Buffer.from(text, "base64"));

const files = json("files.json");
const refused = json("refused.json");
const frequencies = new Uint8Array(readFileSync(new URL("row-tables.bin", FIXTURES)));
const compact = files.find((/** @type {any} */ file) => file.header.compact);
const rowTables = RowTables.fromBytes(frequencies, 12, compact.header.tokenizer_id);

test("files of Python are read, and written again to the byte", () => {
  const kinds = new Set();
  for (const { bytes, header, tokens } of files) {
    const given = binary(bytes);
    const codes = unpack(given, { rowTables });
    assert.deepEqual([...codes.tokens], tokens);
    assert.deepEqual(
      {
        model: codes.model,
        tokenizer_id: codes.tokenizerId,
        sample_rate: codes.sampleRate,
        channels: codes.channels,
        samples: codes.samples,
        rows: codes.rows,
        columns: codes.columns,
        bits: codes.bits,
        channel_axis: codes.channelAxis,
        compact: header.compact,
      },
      header,
    );
    const options = header.compact ? { rowTables } : {};
    assert.deepEqual(pack(codes, options), given);
    kinds.add(header.compact ? "compact" : header.bits);
  }
  assert.equal(kinds.size, 17, "compact, and packed with 1 to 16 bits");
});

test("files that Python refuses are refused with the same sentence", () => {
  assert.ok(refused.length > 2000);
  for (const { bytes, reason } of refused) {
    assert.throws(() => unpack(binary(bytes), { rowTables }), (error) => {
      assert.ok(error instanceof MelcapError);
      const sentence = error.message.replace("sampleRate", "sample_rate");
      // Python quotes names in its own way, and looks for row tables among many.
      if (reason.startsWith("model is")) {
        assert.match(sentence, /^model is .* not 1 to 96 printable ASCII characters$/s);
      } else if (reason.startsWith("the row tables of tokenizer")) {
        assert.match(sentence, /needs the row tables of tokenizer|the row tables are of tokenizer/);
      } else {
        assert.ok(sentence.includes(reason.replace(/^its (?=row|token)/, "")), `${sentence}; ${reason}`);
      }
      return true;
    });
  }
});

test("every single flipped bit is refused", () => {
  for (const index of [5, files.length - 2]) {
    const given = binary(files[index].bytes);
    for (let bit = 0; bit < 8 * given.length; bit++) {
      const flipped = given.slice();
      flipped[bit >> 3] ^= 1 << (bit & 7);
      assert.throws(() => unpack(flipped, { rowTables }), MelcapError, `bit ${bit}`);
    }
  }
});

test("bytes within a larger buffer are read", () => {
  const given = binary(files[3].bytes);
  const larger = new Uint8Array(given.length + 9);
  larger.set(given, 5);
  const codes = unpack(larger.subarray(5, 5 + given.length));
  assert.deepEqual([...codes.tokens], files[3].tokens);
});

test("other values than bytes are refused", () => {
  for (const value of [null, "MELCAP", new ArrayBuffer(60), [1, 2]]) {
    assert.throws(() => unpack(/** @type {any} */ (value)), /must be a Uint8Array/);
  }
});

test("a file that row tables make no smaller is packed", () => {
  const rare = rowTables.starts.map((starts) => {
    const widths = [...starts.slice(1)].map((start, token) => start - starts[token]);
    return widths.indexOf(Math.min(...widths));
  });
  const tokens = Int32Array.from({ length: 12 * 20 }, (_, index) => rare[Math.floor(index / 20)]);
  const codes = new Codes({
    tokens,
    channels: 1,
    rows: 12,
    columns: 20,
    samples: 40960,
    sampleRate: 44100,
    tokenizerId: rowTables.tokenizerId,
    bits: 13,
  });
  assert.deepEqual(pack(codes, { rowTables }), pack(codes));
});

test("the range coder gives Python's bytes, where words overflow and carry too", () => {
  let count = 0;
  for (const { frequencies: row, cases } of json("coder.json")) {
    const tables = new RowTables(Uint16Array.from(row), 1, rowTables.tokenizerId);
    for (const { tokens, bytes } of cases) {
      const coded = encode(Int32Array.from(tokens), tables);
      assert.equal(Buffer.from(coded).toString("hex"), bytes);
      assert.deepEqual([...decode(coded, tables, tokens.length)], tokens);
      count++;
    }
  }
  assert.ok(count > 310, "some end where the last word overflows");
});

test("row tables are checked", () => {
  const fails = (/** @type {Uint8Array} */ bytes, /** @type {number} */ rows, /** @type {RegExp} */ reason) =>
    assert.throws(() => RowTables.fromBytes(bytes, rows, rowTables.tokenizerId), reason);
  fails(frequencies.subarray(1), 12, /even number of bytes/);
  fails(frequencies, 11, /power of two/);
  fails(new Uint8Array(12 * 8 * 2), 12, /positive and add up/);
  const moved = frequencies.slice();
  moved[0] ^= 1;
  fails(moved, 12, /positive and add up/);
  const zeros = new Uint16Array(16).fill(2 ** 14);
  zeros.set([0, 2 ** 15]);
  assert.equal(zeros.reduce((sum, each) => sum + each), 2 ** 18);
  assert.throws(() => new RowTables(zeros, 1, rowTables.tokenizerId), /positive and add up/);
});

test("row tables of another tokenizer, and for another grid, are not used", () => {
  const other = RowTables.fromBytes(frequencies, 12, "0123456789abcdef");
  assert.throws(() => unpack(binary(compact.bytes), { rowTables: other }), /are of tokenizer 0123/);
  const codes = unpack(binary(compact.bytes), { rowTables });
  assert.throws(() => pack(codes, { rowTables: other }), /are of tokenizer 0123/);
  assert.throws(() => unpack(binary(compact.bytes)), /needs the row tables of tokenizer/);
  const narrow = new Codes({ ...codes, rows: 6, columns: 2 * codes.columns });
  assert.throws(() => pack(narrow, { rowTables }), /for 12 rows of tokens, not 6/);
});

test("codes refuse values that do not fit", () => {
  const fields = {
    tokens: Int32Array.of(1, 2, 3, 4),
    channels: 1,
    rows: 2,
    columns: 2,
    samples: 5000,
    sampleRate: 44100,
    tokenizerId: "0123456789abcdef",
  };
  assert.equal(new Codes(fields).bits, 3);
  /** @type {[object, RegExp][]} */
  const bad = [
    [{ tokens: [1, 2, 3, 4] }, /must be an Int32Array/],
    [{ tokens: Int32Array.of(1, 2, 3) }, /1 x 2 x 2 tokens were expected, not 3/],
    [{ tokens: Int32Array.of(1, -2, 3, 4) }, /token -2 does not fit/],
    [{ bits: 2 }, /token 4 does not fit 2 bits \(0 to 3\)/],
    [{ bits: 17 }, /bits is 17/],
    [{ channels: 0.5 }, /channels is 0.5/],
    [{ samples: 0 }, /samples is 0/],
    [{ sampleRate: NaN }, /sampleRate is NaN/],
    [{ tokenizerId: "0123456789ABCDEF" }, /16 hexadecimal digits/],
    [{ model: "" }, /printable/],
    [{ channels: 2, rows: 1, channelAxis: false }, /need an axis of channels/],
  ];
  for (const [change, reason] of bad) {
    assert.throws(() => new Codes({ ...fields, ...change }), reason);
  }
});

test("a flattened clip is column after column", () => {
  const codes = new Codes({
    tokens: Int32Array.of(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12),
    channels: 2,
    rows: 2,
    columns: 3,
    samples: 6000,
    sampleRate: 44100,
    tokenizerId: "0123456789abcdef",
  });
  assert.deepEqual(codes.flatten().map((one) => [...one]), [
    [1, 4, 2, 5, 3, 6],
    [7, 10, 8, 11, 9, 12],
  ]);
});
