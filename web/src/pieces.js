/**
 * A part of a clip in columns. The columns from `first` to `last` are computed, which are those from
 * `begin` to `end` with their context.
 *
 * @typedef {{ begin: number, end: number, first: number, last: number }} Piece
 */

/**
 * Cut a clip into pieces that give the result of the whole clip.
 *
 * @param {number} columns The columns of the clip.
 * @param {number} size The columns of a piece.
 * @param {[number, number]} context The columns of context before and after.
 * @returns {Piece[]}
 */
export function piecesOf(columns, size, [before, after]) {
  return Array.from({ length: Math.ceil(columns / size) }, (_, index) => {
    const begin = index * size;
    const end = Math.min(begin + size, columns);
    return { begin, end, first: Math.max(0, begin - before), last: Math.min(end + after, columns) };
  });
}
