/** The bytes of files: from a URL or at hand, unpacked where they are gzipped. */
import { MelcapError, messageOf } from "./errors.js";

/** @typedef {string | URL | ArrayBuffer | Uint8Array} Source A URL, or the bytes themselves. */

/**
 * Return the bytes of a file. Gzipped bytes are unpacked, whatever the name of the file.
 *
 * @param {Source} source
 * @param {AbortSignal} [signal]
 * @returns {Promise<Uint8Array>}
 * @throws {MelcapError} Where the file cannot be fetched or unpacked.
 */
export async function bytesOf(source, signal) {
  const bytes =
    typeof source === "string" || source instanceof URL
      ? await fetched(source, signal)
      : new Uint8Array(source instanceof Uint8Array ? source : new Uint8Array(source));
  return bytes[0] === 0x1f && bytes[1] === 0x8b ? unzipped(bytes) : bytes;
}

/**
 * @param {string | URL} url
 * @param {AbortSignal} [signal]
 */
async function fetched(url, signal) {
  try {
    const response = await fetch(url, { signal });
    if (!response.ok) {
      throw new MelcapError(`the server answered ${response.status} ${response.statusText}`.trim());
    }
    return new Uint8Array(await response.arrayBuffer());
  } catch (error) {
    signal?.throwIfAborted();
    throw new MelcapError(
      `${url} could not be fetched (${messageOf(error)}): check the connection, and try again`,
      { cause: error },
    );
  }
}

/** @param {Uint8Array<ArrayBuffer>} bytes */
async function unzipped(bytes) {
  if (typeof DecompressionStream === "undefined") {
    throw new MelcapError(
      "this browser cannot unpack gzip (DecompressionStream): update it, or serve the files unpacked",
    );
  }
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  try {
    return new Uint8Array(await new Response(stream).arrayBuffer());
  } catch (error) {
    throw new MelcapError(`the gzipped file is damaged (${messageOf(error)}): fetch it again`, {
      cause: error,
    });
  }
}
