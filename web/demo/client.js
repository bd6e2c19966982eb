/** Calls of the codec's worker. */
import { MelcapError } from "../src/index.js";

/** @typedef {{ signal?: AbortSignal, progress?: (share: number) => void }} Watch */
/** @typedef {(message: any) => void} Listener */

export class Client {
  /** @type {Map<number, Listener>} */
  #listeners = new Map();
  #count = 0;

  constructor() {
    // A worker from a blob inherits the page's content security policy; one from a URL does not.
    const script = `import ${JSON.stringify(new URL("worker.js", import.meta.url).href)};`;
    const url = URL.createObjectURL(new Blob([script], { type: "text/javascript" }));
    this.worker = new Worker(url, { type: "module" });
    this.worker.addEventListener("message", ({ data }) => this.#listeners.get(data.id)?.(data));
    this.worker.addEventListener("error", () => {
      const message = "The codec's worker stopped: reload the page, or use a shorter clip.";
      for (const listener of this.#listeners.values()) {
        listener({ error: { name: "MelcapError", message } });
      }
    });
  }

  /**
   * Call a method of the worker.
   *
   * @param {string} method
   * @param {object} input
   * @param {Watch} [watch]
   * @returns {Promise<any>}
   */
  call(method, input, { signal, progress } = {}) {
    const id = this.#count++;
    const stop = () => this.worker.postMessage({ id, abort: true });
    const answer = new Promise((resolve, reject) => {
      this.#listeners.set(id, (message) => {
        if ("progress" in message) {
          progress?.(message.progress);
        } else if (message.error) {
          const { name, message: text } = message.error;
          reject(name === "AbortError" ? signal?.reason : new MelcapError(text));
        } else {
          resolve(message.result);
        }
      });
      signal?.throwIfAborted();
      signal?.addEventListener("abort", stop);
      this.worker.postMessage({ id, method, input });
    });
    return answer.finally(() => {
      signal?.removeEventListener("abort", stop);
      this.#listeners.delete(id);
    });
  }
}
