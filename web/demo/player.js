/** The versions of a clip, played in step, of which one is heard. */

/** Seconds of the fade between two versions, which a jump of the wave would make a click. */
const FADE = 0.01;

export class Player {
  /** @type {AudioContext | undefined} */
  #context;
  /** @type {Map<string, { source: AudioBufferSourceNode, gain: GainNode }>} */
  #playing = new Map();
  /** @type {Map<string, Float32Array[]>} */
  #versions = new Map();
  #rate = 44100;
  #heard = "";
  #begun = 0;
  #offset = 0;

  /** The duration of the clip in seconds. */
  duration = 0;

  /** @param {() => void} ended Called when the clip has been played to its end. */
  constructor(ended) {
    this.ended = ended;
  }

  /**
   * Take the versions of another clip, all of one length.
   *
   * @param {Record<string, Float32Array[]>} versions
   * @param {number} sampleRate
   * @param {string} heard The version to hear first.
   */
  take(versions, sampleRate, heard) {
    this.stop();
    this.#versions = new Map(Object.entries(versions));
    this.#rate = sampleRate;
    this.#heard = heard;
    this.#offset = 0;
    this.duration = Math.max(...Object.values(versions).map(([wave]) => wave.length)) / sampleRate;
  }

  get playing() {
    return this.#playing.size > 0;
  }

  /** The position in seconds. */
  get position() {
    const elapsed = this.#context && this.playing ? this.#context.currentTime - this.#begun : 0;
    return Math.min(this.duration, this.#offset + Math.max(0, elapsed));
  }

  async play() {
    const context = (this.#context ??= new AudioContext());
    await context.resume();
    this.stop();
    if (this.#offset >= this.duration) {
      this.#offset = 0;
    }
    this.#begun = context.currentTime + 0.02;
    for (const [name, waves] of this.#versions) {
      const buffer = context.createBuffer(waves.length, waves[0].length, this.#rate);
      waves.forEach((wave, index) => buffer.getChannelData(index).set(wave));
      const source = new AudioBufferSourceNode(context, { buffer });
      const gain = new GainNode(context, { gain: name === this.#heard ? 1 : 0 });
      source.connect(gain).connect(context.destination);
      source.start(this.#begun, this.#offset);
      this.#playing.set(name, { source, gain });
    }
    const [first] = this.#playing.values();
    first.source.onended = () => {
      this.stop();
      this.#offset = 0;
      this.ended();
    };
  }

  /** Stop, and keep the position. */
  stop() {
    this.#offset = this.position;
    for (const { source } of this.#playing.values()) {
      source.onended = null;
      source.stop();
    }
    this.#playing.clear();
  }

  /** @param {number} seconds */
  async seek(seconds) {
    const goesOn = this.playing;
    this.stop();
    this.#offset = seconds;
    if (goesOn) {
      await this.play();
    }
  }

  /**
   * Hear another version, at the same place.
   *
   * @param {string} name
   */
  hear(name) {
    this.#heard = name;
    for (const [version, { gain }] of this.#playing) {
      gain.gain.setTargetAtTime(version === name ? 1 : 0, gain.context.currentTime, FADE / 3);
    }
  }

  /** How loud each version is at this moment, from 0 to 1. */
  get levels() {
    return Object.fromEntries([...this.#playing].map(([name, { gain }]) => [name, gain.gain.value]));
  }
}
