/** The error that every function of this package throws for input that it cannot use. */
export class MelcapError extends Error {
  /**
   * @param {string} message What is wrong, and what to do.
   * @param {ErrorOptions} [options] The error that caused this one, as `cause`.
   */
  constructor(message, options) {
    super(message, options);
    this.name = "MelcapError";
  }
}

/**
 * Return the message of anything that was thrown.
 *
 * @param {unknown} error
 * @returns {string}
 */
export function messageOf(error) {
  return error instanceof Error ? error.message : String(error);
}
