/** Log-mel spectrograms for pictures, with the window and the filters of the codec's front end. */

const SIZE = 1024;
const HOP = 256;
export const MELS = 96;
const FLOOR = 1e-3;

/**
 * Return the natural logarithms of the mel magnitudes of a wave, in at most `width` frames.
 *
 * @param {Float32Array} wave
 * @param {number} sampleRate
 * @param {number} width The most frames; of a longer clip, frames are left out evenly.
 * @returns {{ values: Float32Array, frames: number }} Values [frames, mels].
 */
export function logMel(wave, sampleRate, width) {
  const all = Math.max(1, Math.ceil(wave.length / HOP));
  const frames = Math.min(all, width);
  const window = Float64Array.from({ length: SIZE }, (_, n) => Math.sin((Math.PI * n) / SIZE) ** 2);
  const filters = melFilters(sampleRate);
  const values = new Float32Array(frames * MELS);
  const [real, imaginary] = [new Float64Array(SIZE), new Float64Array(SIZE)];
  for (let frame = 0; frame < frames; frame++) {
    const index = Math.floor((frame * all) / frames);
    const begin = index * HOP + HOP / 2 - SIZE / 2;
    for (let n = 0; n < SIZE; n++) {
      real[n] = window[n] * (wave[begin + n] ?? 0);
    }
    imaginary.fill(0);
    fft(real, imaginary);
    filters.forEach((filter, mel) => {
      let sum = 0;
      for (const [bin, weight] of filter) {
        sum += weight * Math.hypot(real[bin], imaginary[bin]);
      }
      values[frame * MELS + mel] = Math.log(Math.max(sum, FLOOR));
    });
  }
  return { values, frames };
}

/**
 * Return triangular filters on the HTK mel scale, each as pairs of a bin and its weight.
 *
 * @param {number} sampleRate
 * @returns {[number, number][][]}
 */
function melFilters(sampleRate) {
  const mel = (/** @type {number} */ hertz) => 2595 * Math.log10(1 + hertz / 700);
  const top = mel(sampleRate / 2);
  const edges = Array.from(
    { length: MELS + 2 },
    (_, index) => 700 * (10 ** ((top * index) / (MELS + 1) / 2595) - 1),
  );
  return Array.from({ length: MELS }, (_, index) => {
    const [low, centre, high] = edges.slice(index, index + 3);
    /** @type {[number, number][]} */
    const filter = [];
    for (let bin = 0; bin <= SIZE / 2; bin++) {
      const hertz = (bin * sampleRate) / SIZE;
      const weight = Math.min((hertz - low) / (centre - low), (high - hertz) / (high - centre));
      if (weight > 0) {
        filter.push([bin, weight]);
      }
    }
    return filter;
  });
}

/**
 * Transform a complex signal in place: the radix-2 FFT of Cooley and Tukey.
 *
 * @param {Float64Array} real
 * @param {Float64Array} imaginary
 */
function fft(real, imaginary) {
  const size = real.length;
  for (let i = 1, j = 0; i < size; i++) {
    let bit = size >> 1;
    for (; j & bit; bit >>= 1) {
      j ^= bit;
    }
    j ^= bit;
    if (i < j) {
      [real[i], real[j]] = [real[j], real[i]];
      [imaginary[i], imaginary[j]] = [imaginary[j], imaginary[i]];
    }
  }
  for (let half = 1; half < size; half *= 2) {
    for (let k = 0; k < half; k++) {
      const [cos, sin] = [Math.cos((Math.PI * k) / half), -Math.sin((Math.PI * k) / half)];
      for (let i = k; i < size; i += 2 * half) {
        const j = i + half;
        const re = real[j] * cos - imaginary[j] * sin;
        const im = real[j] * sin + imaginary[j] * cos;
        real[j] = real[i] - re;
        imaginary[j] = imaginary[i] - im;
        real[i] += re;
        imaginary[i] += im;
      }
    }
  }
}
