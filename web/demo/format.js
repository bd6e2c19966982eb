/** Numbers as people read them. */

/**
 * Return a time as minutes and seconds, such as 1:07.
 *
 * @param {number} seconds
 */
export function clock(seconds) {
  const whole = Math.floor(seconds);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}

/**
 * Return a number of bytes with its unit.
 *
 * @param {number} count
 */
export function bytes(count) {
  if (count < 1000) {
    return `${count} bytes`;
  }
  return count < 1e6 ? `${(count / 1e3).toFixed(1)} kB` : `${(count / 1e6).toFixed(1)} MB`;
}

/**
 * Return a ratio with two or three digits.
 *
 * @param {number} value
 */
export function times(value) {
  return value < 10 ? value.toFixed(1) : value.toFixed(0);
}
