// The blind test of the listening page: A is the original, B is coded, and X is one of them.
// It is built in each element of class "blind-test"; docs/listening.py writes the list of clips.

/** The time of a switch in seconds: half of it fades out, half of it fades in. */
export const FADE = 0.01;

/** Sources start this much later, so that none of them misses the start. */
const LEAD = 0.05;

/**
 * Return the probability of this many right answers or more by guessing.
 *
 * It is the number of sequences of answers with as many right, out of all, counted in integers.
 * @param {number} right
 * @param {number} answered at most 1023, where doubles end
 */
export function chance(right, answered) {
  let ways = 0n;
  let choose = 1n;
  for (let k = 0; k <= answered; k += 1) {
    if (k >= right) ways += choose;
    choose = (choose * BigInt(answered - k)) / BigInt(k + 1);
  }
  return Number(ways) / 2 ** answered;
}

/**
 * Return the result of a test in words.
 * @param {number} right
 * @param {number} answered
 */
export function inWords(right, answered) {
  if (!answered) return "No answers yet.";
  const probability = chance(right, answered);
  const percent = probability < 0.001 ? "less than 0.1" : (100 * probability).toFixed(1);
  const meaning = probability <= 0.05
    ? "at most one test of 20, so it is likely that you hear a difference."
    : "more than one test of 20, so it does not show that you hear a difference.";
  return `${right} of ${answered} right. Probability of ${right} or more by guessing: `
    + `${percent} %. Guessing gets this far in ${meaning}`;
}

/** Play one of several buffers of equal length, and switch between them at the same place. */
export class Player {
  /**
   * @param {BaseAudioContext} context
   * @param {AudioBuffer[]} buffers
   * @param {() => void} ended is called when the end is reached without loop
   */
  constructor(context, buffers, ended = () => {}) {
    this.context = context;
    this.buffers = buffers;
    this.ended = ended;
    /** What plays now. */
    this.graph = null;
  }

  /**
   * Play a buffer: from its beginning, or from the place where another one plays.
   *
   * Every switch fades out and in, also one to the same buffer. So the fade from A to X does not
   * tell whether X is A.
   * @param {number} which
   * @param {boolean} loop
   */
  play(which, loop) {
    if (!this.graph) {
      this.#start(which, loop);
      return;
    }
    const { main, levels, readyAt } = this.graph;
    const start = Math.max(this.context.currentTime, readyAt);
    const middle = start + FADE / 2;
    main.gain.setValueAtTime(1, start);
    main.gain.linearRampToValueAtTime(0, middle);
    levels.forEach((level, each) => level.gain.setValueAtTime(Number(each === which), middle));
    main.gain.linearRampToValueAtTime(1, start + FADE);
    this.graph.readyAt = start + FADE;
  }

  /** @param {boolean} loop whether to go on from the beginning at the end */
  setLoop(loop) {
    for (const source of this.graph?.sources ?? []) source.loop = loop;
  }

  /** Fade out and stop. */
  stop() {
    if (!this.graph) return;
    const { main, sources, readyAt } = this.graph;
    this.graph = null;
    const start = Math.max(this.context.currentTime, readyAt);
    main.gain.setValueAtTime(1, start);
    main.gain.linearRampToValueAtTime(0, start + FADE);
    for (const source of sources) source.stop(start + FADE);
  }

  #start(which, loop) {
    const { context } = this;
    // At a whole sample, as a browser may interpolate between samples elsewhere.
    const rate = context.sampleRate;
    const start = Math.ceil((context.currentTime + LEAD) * rate) / rate;
    const main = new GainNode(context, { gain: 0 });
    main.connect(context.destination);
    main.gain.setValueAtTime(0, start);
    main.gain.linearRampToValueAtTime(1, start + FADE);
    const levels = this.buffers.map(
      (_, each) => new GainNode(context, { gain: Number(each === which) }),
    );
    const sources = this.buffers.map((buffer, each) => {
      const source = new AudioBufferSourceNode(context, { buffer, loop });
      source.connect(levels[each]).connect(main);
      source.start(start);
      return source;
    });
    const graph = { main, levels, sources, readyAt: start + FADE };
    sources[0].onended = () => {
      if (this.graph !== graph) return;
      this.graph = null;
      this.ended();
    };
    this.graph = graph;
  }
}

const FORM = `
  <div class="blind-test__row">
    <label>Clip <select data-part="clip"></select></label>
    <label>Compare the original with <select data-part="version"></select></label>
  </div>
  <div class="blind-test__row" role="group" aria-label="Listen">
    <button type="button" data-play="A"><b>A</b> original</button>
    <button type="button" data-play="B"><b>B</b> <span data-part="coded"></span></button>
    <button type="button" data-play="X"><b>X</b> A or B?</button>
    <button type="button" data-part="stop">Stop</button>
    <label><input type="checkbox" data-part="loop" checked> Loop</label>
  </div>
  <div class="blind-test__row" role="group" aria-label="Answer">
    <button type="button" data-answer="A">X is A</button>
    <button type="button" data-answer="B">X is B</button>
    <button type="button" data-part="again">Start over</button>
  </div>
  <p class="blind-test__note" role="status" data-part="note"></p>
  <p class="blind-test__result" role="status" data-part="result"></p>`;

/** Draw X: "A" or "B". */
function draw() {
  return crypto.getRandomValues(new Uint8Array(1))[0] % 2 ? "B" : "A";
}

/**
 * Build the blind test in an element.
 * @param {HTMLElement} root
 */
async function build(root) {
  const address = new URL(root.dataset.list, document.baseURI);
  const answer = await fetch(address);
  if (!answer.ok) throw new Error(`${address.pathname}: ${answer.status}`);
  const list = await answer.json();

  root.innerHTML = FORM;
  /** @type {Record<string, any>} */
  const parts = {};
  for (const part of root.querySelectorAll("[data-part]")) parts[part.dataset.part] = part;
  const plays = [...root.querySelectorAll("[data-play]")];
  const [, ...coded] = list.clips[0].versions;
  parts.clip.append(...list.clips.map(({ clip }) => new Option(clip)));
  parts.version.append(...coded.map(({ label, version }) => new Option(label, version)));

  /** @type {AudioContext | undefined} */
  let context;
  /** @type {Promise<Player> | null} */
  let opening = null;
  /** @type {Player | null} */
  let player = null;
  let x = draw();
  let pressed = "";
  let heard = false;
  let right = 0;
  let answered = 0;

  function show(note = "") {
    for (const button of plays) {
      button.setAttribute("aria-pressed", String(button.dataset.play === pressed));
    }
    parts.coded.textContent = parts.version.selectedOptions[0].label;
    parts.note.textContent = note;
    parts.result.textContent = inWords(right, answered);
  }

  function stop() {
    player?.stop();
    pressed = "";
  }

  function nextRound() {
    stop();
    x = draw();
    heard = false;
  }

  function startOver() {
    nextRound();
    right = 0;
    answered = 0;
    show();
  }

  async function load(file) {
    const found = await fetch(new URL(file, address));
    if (!found.ok) throw new Error(`${file}: ${found.status}`);
    return context.decodeAudioData(await found.arrayBuffer());
  }

  async function open() {
    context ??= new AudioContext({ sampleRate: list.sample_rate });
    const { versions } = list.clips[parts.clip.selectedIndex];
    const other = versions.find(({ version }) => version === parts.version.value);
    const buffers = await Promise.all([load(versions[0].file), load(other.file)]);
    return new Player(context, buffers, () => {
      pressed = "";
      show();
    });
  }

  async function play(name) {
    if (name === pressed) return;
    for (const audio of document.querySelectorAll("audio")) audio.pause();
    pressed = name;
    show(player ? "" : "Loading the clips.");
    const mine = (opening ??= open());
    try {
      const opened = await mine;
      await context.resume();
      // Meanwhile another button may have been pressed, or another clip chosen.
      if (opening !== mine || pressed !== name) return;
      player = opened;
      player.play(Number((name === "X" ? x : name) === "B"), parts.loop.checked);
      heard ||= name === "X";
      show();
    } catch (error) {
      if (opening !== mine) return;
      opening = null;
      pressed = "";
      show(`The clips could not be loaded: ${error.message}`);
    }
  }

  function answerRound(name) {
    if (!heard) {
      show("Listen to X before you answer.");
      return;
    }
    const was = x;
    answered += 1;
    right += Number(name === was);
    nextRound();
    show(`${name === was ? "Right" : "Wrong"}: X was ${was}. X is drawn anew.`);
  }

  function choose() {
    startOver();
    opening = null;
    player = null;
  }

  for (const button of plays) button.onclick = () => play(button.dataset.play);
  for (const button of root.querySelectorAll("[data-answer]")) {
    button.onclick = () => answerRound(button.dataset.answer);
  }
  parts.clip.onchange = choose;
  parts.version.onchange = choose;
  parts.loop.onchange = () => player?.setLoop(parts.loop.checked);
  parts.again.onclick = startOver;
  parts.stop.onclick = () => {
    stop();
    show();
  };
  show();
}

for (const root of document.querySelectorAll(".blind-test")) {
  build(root).catch((error) => {
    root.textContent = `The blind test could not be loaded: ${error.message}`;
  });
}
