import assert from "node:assert/strict";
import { test } from "node:test";
import { encodeWav } from "../src/index.js";

test("a WAV file has the header and the samples that it should", () => {
  const left = Float32Array.of(0, 0.5, -0.5, 1, -1, 2, -2, 1 / 32768);
  const right = Float32Array.of(1, 0, 0, 0, 0, 0, 0, -1 / 65537);
  const bytes = encodeWav([left, right], 48000);
  const view = new DataView(bytes.buffer);
  const text = (/** @type {number} */ at) => String.fromCharCode(...bytes.subarray(at, at + 4));
  assert.deepEqual([text(0), text(8), text(12), text(36)], ["RIFF", "WAVE", "fmt ", "data"]);
  assert.equal(bytes.length, 44 + 32);
  assert.deepEqual([view.getUint32(4, true), view.getUint32(40, true)], [36 + 32, 32]);
  assert.deepEqual(
    [20, 22, 32, 34].map((at) => view.getUint16(at, true)),
    [1, 2, 4, 16],
  );
  assert.deepEqual([view.getUint32(24, true), view.getUint32(28, true)], [48000, 192000]);
  const samples = Array.from({ length: 16 }, (_, index) => view.getInt16(44 + 2 * index, true));
  const even = samples.filter((_, index) => index % 2 === 0);
  assert.deepEqual(even, [0, 16384, -16384, 32767, -32768, 32767, -32768, 1]);
  assert.deepEqual(samples[1], 32767);
});
