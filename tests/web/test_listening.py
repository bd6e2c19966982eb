"""The blind test of the listening page, in a browser."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from melcap import audio
from tests.web.conftest import ROOT, script

pytestmark = pytest.mark.web

RATE = 44100
TONES = {"original": 440, "melcap": 1500, "opus-6": 4000}
"""The frequencies in Hz of the clips of the browser tests, which tell them apart."""

# The page draws what a test says: 0 for A and 1 for B. `heard` returns the loudest frequency.
DETERMINISTIC = """
const draws = %s;
crypto.getRandomValues = (array) => array.fill(draws.shift());
window.contexts = 0;
window.AudioContext = class extends AudioContext {
  constructor(...options) { super(...options); window.contexts += 1; }
};
window.ended = 0;
window.AudioBufferSourceNode = class extends AudioBufferSourceNode {
  constructor(...options) {
    super(...options);
    this.addEventListener("ended", () => { window.ended += 1; });
  }
};
const connect = AudioNode.prototype.connect;
AudioNode.prototype.connect = function (target, ...rest) {
  if (target === this.context.destination && this.context instanceof AudioContext) {
    window.analyser = new AnalyserNode(this.context, { fftSize: 4096, smoothingTimeConstant: 0 });
    connect.call(this, window.analyser);
  }
  return connect.call(this, target, ...rest);
};
window.heard = () => {
  if (!window.analyser) return 0;
  const levels = new Float32Array(window.analyser.frequencyBinCount);
  window.analyser.getFloatFrequencyData(levels);
  const loudest = levels.indexOf(Math.max(...levels));
  return levels[loudest] > -60 ? loudest * window.analyser.context.sampleRate / 4096 : 0;
};
"""

Opened = Callable[..., Any]


def _tone(hertz: float, seconds: float) -> npt.NDArray[np.float32]:
    wave = 0.3 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE)
    return wave[None].astype(np.float32)


@pytest.fixture(scope="module")
def listening_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve a page with a blind test as the site has it, and yield its address."""
    folder = tmp_path_factory.mktemp("site")
    versions = [
        {"version": name, "label": name.replace("-", " "), "file": f"{name}.flac"} for name in TONES
    ]
    (folder / "clips").mkdir()
    for name, hertz in TONES.items():
        audio.write(folder / "clips" / f"{name}.flac", _tone(hertz, 0.5), RATE)
    clips = [{"clip": "tone", "versions": versions}, {"clip": "other", "versions": versions}]
    index = {"sample_rate": RATE, "clips": clips}
    (folder / "clips" / "listening.json").write_text(json.dumps(index))
    for name in ("listening.js", "extra.css"):
        shutil.copy(ROOT / "docs" / name, folder)
    (folder / "listen").mkdir()
    blind_test = script("docs/listening.py").blind_test()
    (folder / "listen" / "index.html").write_text(
        '<!doctype html><meta charset="utf-8"><title>Listen</title>'
        '<meta name="viewport" content="width=device-width"><link rel="icon" href="data:,">'
        '<link rel="stylesheet" href="../extra.css"><body class="md-typeset">'
        f"{blind_test}"
        '<script src="../listening.js" type="module"></script>'
    )
    with script("web/serve.py").served(folder, isolated=False) as address:
        yield f"{address}listen/"


@pytest.fixture
def opened(browser: Any, listening_site: str) -> Iterator[Opened]:
    """Return a function that opens the page, which draws X as it is told."""
    contexts = []

    def open_page(draws: str = "", **options: Any) -> Any:
        context = browser.new_context(**options)
        context.set_default_timeout(5000)
        contexts.append(context)
        page = context.new_page()
        numbers = ["AB".index(letter) for letter in f"{draws}AAA"]
        page.add_init_script(DETERMINISTIC % numbers)
        page.goto(listening_site)
        page.wait_for_selector("text=No answers yet.")
        return page

    yield open_page
    for context in contexts:
        context.close()


def test_the_probability_is_that_of_the_binomial_distribution(opened: Opened) -> None:
    cases = [(right, answered) for answered in (0, 1, 2, 10, 63, 300) for right in range(301)]
    cases = [case for case in cases if case[0] <= case[1]]
    found = opened().evaluate(
        """async (cases) => {
          const { chance } = await import("../listening.js");
          return cases.map((each) => chance(...each));
        }""",
        cases,
    )
    for (right, answered), probability in zip(cases, found, strict=True):
        ways = sum(math.comb(answered, each) for each in range(right, answered + 1))
        assert probability == ways / 2**answered, (right, answered)


@pytest.mark.parametrize(
    ("right", "answered", "percent", "meaning"),
    [
        (5, 5, "3.1 %", "it is likely that you hear a difference"),
        (4, 4, "6.3 %", "it does not show that you hear a difference"),
        (0, 3, "100.0 %", "it does not show that you hear a difference"),
        (20, 20, "less than 0.1 %", "it is likely that you hear a difference"),
    ],
)
def test_the_result_in_words(
    opened: Opened, right: int, answered: int, percent: str, meaning: str
) -> None:
    text = opened().evaluate(
        'async (each) => (await import("../listening.js")).inWords(...each)', [right, answered]
    )
    assert text.startswith(f"{right} of {answered} right. ")
    assert f"by guessing: {percent}. " in text
    assert meaning in text


def test_right_and_wrong_answers_are_counted(opened: Opened) -> None:
    page = opened("ABBA")
    for answer, note, result in (
        ("A", "Right: X was A.", "1 of 1 right"),
        ("A", "Wrong: X was B.", "1 of 2 right"),
        ("B", "Right: X was B.", "2 of 3 right"),
        ("B", "Wrong: X was A.", "2 of 4 right. Probability of 2 or more by guessing: 68.8 %"),
    ):
        _play(page, "X")
        page.click(f"text=X is {answer}")
        assert note in page.inner_text(".blind-test__note")
        assert result in page.inner_text(".blind-test__result")
    page.click("text=Start over")
    assert page.inner_text("[role=status].blind-test__result") == "No answers yet."


def test_an_answer_needs_x_in_its_round(opened: Opened) -> None:
    page = opened("AB")
    _play(page, "A")
    page.click("text=X is A")
    assert page.inner_text("[role=status].blind-test__note").startswith("Listen to X")
    assert page.inner_text(".blind-test__result") == "No answers yet."
    _play(page, "X")
    page.click("text=X is A")
    page.click("text=X is A")
    assert "1 of 1 right" in page.inner_text(".blind-test__result")


@pytest.mark.parametrize("drawn", ["A", "B"])
def test_each_button_plays_what_it_says(opened: Opened, drawn: str) -> None:
    page = opened(drawn)
    sounds = {"A": "original", "B": "melcap", "X": {"A": "original", "B": "melcap"}[drawn]}
    for button in "AXBXA":  # a switch to X comes from either sound
        _play(page, button)
        page.wait_for_function(_is_heard(sounds[button]))
    page.click("text=Stop")
    page.wait_for_function("heard() === 0 && ended === 2")
    assert page.query_selector("[aria-pressed=true]") is None


def test_a_switch_keeps_the_place_and_sounds_alike_whatever_x_is(opened: Opened) -> None:
    """Rendered offline: A, and from a quarter on A or B. Both ways fade out and in."""
    page = opened()
    rendered = page.evaluate(
        """async () => {
          const { Player } = await import("../listening.js");
          const render = async (which) => {
            const context = new OfflineAudioContext(1, 32768, 44100);
            const buffers = [1, -2].map((sign) => {
              const buffer = context.createBuffer(1, 10000, 44100);
              buffer.getChannelData(0).forEach((_, at, data) => data[at] = sign * (1 + at));
              return buffer;
            });
            const player = new Player(context, buffers);
            player.play(0, true);
            context.suspend(8192 / 44100).then(() => {
              player.play(which, true);
              context.resume();
            });
            return [...(await context.startRendering()).getChannelData(0)];
          };
          return [await render(0), await render(1)];
        }"""
    )
    same, other = np.array(rendered)
    start = np.flatnonzero(same == 1000)[0] - 999
    expected = np.zeros(32768)
    expected[start:] = 1 + np.arange(32768 - start) % 10000
    fade = round(0.01 * RATE) + 1
    steady = np.ones(32768, bool)
    steady[start : start + fade] = steady[8192 : 8192 + fade] = False
    before, middle = np.arange(32768) < 8192, 8192 + fade // 2
    assert np.array_equal(same[steady], expected[steady])
    assert np.array_equal(other[steady & before], expected[steady & before])
    assert np.array_equal(other[steady & ~before], -2 * expected[steady & ~before])
    dips = same / np.maximum(expected, 1), other / np.maximum(expected, 1)
    for dip in dips:
        assert abs(dip[middle - 1 : middle + 1]).min() < 0.01
    assert np.allclose(dips[0][8192 : middle - 1], dips[1][8192 : middle - 1])
    assert np.allclose(-2 * dips[0][middle + 1 : 9000], dips[1][middle + 1 : 9000])


def test_without_loop_it_ends(opened: Opened) -> None:
    page = opened()
    _play(page, "A")
    page.wait_for_timeout(700)  # longer than the clip
    assert page.query_selector("[aria-pressed=true]") is not None
    page.uncheck("text=Loop")
    page.wait_for_selector("[data-play=A][aria-pressed=false]")
    page.check("text=Loop")
    _play(page, "B")
    page.wait_for_function(_is_heard("melcap"))


def test_the_page_is_the_same_whatever_x_is(opened: Opened) -> None:
    seen = {}
    for drawn in "AB":
        page = opened(drawn * 3)
        states = [page.content()]
        for button in "AXBX":
            _play(page, button)
            states.append(page.content())
        page.click("text=Stop")
        seen[drawn] = [*states, page.content()]
    assert seen["A"] == seen["B"]


def test_another_version_starts_over(opened: Opened) -> None:
    page = opened("AAB")
    _play(page, "X")
    page.click("text=X is A")
    page.select_option("[data-part=version]", "opus-6")
    assert page.inner_text(".blind-test__result") == "No answers yet."
    assert page.inner_text("[data-play=B]") == "B opus 6"
    page.wait_for_function("heard() === 0")
    _play(page, "X")
    page.wait_for_function(_is_heard("opus-6"))
    _play(page, "A")
    page.wait_for_function(_is_heard("original"))


def test_a_clip_that_cannot_be_loaded_is_reported(opened: Opened) -> None:
    page = opened()
    page.route("**/melcap.flac", lambda route: route.fulfill(status=404))
    page.click("[data-play=A]")
    page.wait_for_selector("text=could not be loaded: melcap.flac: 404")
    page.unroute("**/melcap.flac")
    _play(page, "A")
    page.wait_for_function(_is_heard("original"))


def test_the_keyboard_is_enough(opened: Opened) -> None:
    page = opened("B")
    order = []
    for _ in range(10):
        page.keyboard.press("Tab")
        order.append(page.evaluate("Object.values(document.activeElement.dataset)[0]"))
    assert order == ["clip", "version", *"ABX", "stop", "loop", *"AB", "again"]
    for _ in range(5):
        page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    page.wait_for_function(_is_heard("melcap"))
    for _ in range(4):
        page.keyboard.press("Tab")
    page.keyboard.press("Space")
    assert "1 of 1 right" in page.inner_text(".blind-test__result")
    assert page.evaluate("document.activeElement.textContent") == "X is B"


def test_nothing_plays_by_itself_and_no_other_host_is_asked(
    opened: Opened, listening_site: str
) -> None:
    page = opened()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.reload()
    page.wait_for_selector("text=No answers yet.")
    page.wait_for_load_state("networkidle")
    assert not [url for url in asked if url.endswith(".flac")]
    assert page.evaluate("contexts") == 0
    for button in "ABX":
        _play(page, button)
    assert page.evaluate("contexts") == 1
    own = listening_site.removesuffix("listen/")
    assert len(asked) == 6  # page, style, script, list and two clips
    assert all(url.startswith(own) or url == "data:," for url in asked)


def test_it_fits_a_phone(opened: Opened) -> None:
    page = opened(viewport={"width": 390, "height": 844})
    boxes = page.evaluate(
        """() => [...document.querySelectorAll(".blind-test, .blind-test *")].map((each) => {
          const { left, right, height } = each.getBoundingClientRect();
          return [each.tagName, left, right, height];
        })"""
    )
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert all(left >= 0 and right <= 390 for _, left, right, _ in boxes)
    sizes = [height for tag, _, _, height in boxes if tag in ("BUTTON", "SELECT", "LABEL")]
    assert len(sizes) == 12
    assert min(sizes) >= 44


def _play(page: Any, button: str) -> None:
    """Press A, B or X, and wait until the clips are loaded."""
    page.click(f"[data-play={button}]")
    page.wait_for_selector(f"[data-play={button}][aria-pressed=true]")
    page.wait_for_function("!document.querySelector('[data-part=note]').textContent")


def _is_heard(name: str) -> str:
    """Return a condition in JavaScript: the loudest frequency is that of a version."""
    return f"Math.abs(heard() - {TONES[name]}) < 30"
