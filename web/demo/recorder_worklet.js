/** Sends what a microphone records to the page, in blocks of a tenth of a second. */
const { AudioWorkletProcessor, registerProcessor } = /** @type {any} */ (globalThis);

class Recorder extends AudioWorkletProcessor {
  #block = new Float32Array(4410);
  #filled = 0;

  /**
   * @param {Float32Array[][]} inputs
   * @returns {boolean}
   */
  process([[samples]]) {
    for (const sample of samples ?? []) {
      this.#block[this.#filled++] = sample;
      if (this.#filled === this.#block.length) {
        this.port.postMessage(this.#block);
        this.#block = new Float32Array(4410);
        this.#filled = 0;
      }
    }
    return true;
  }
}

registerProcessor("recorder", Recorder);
