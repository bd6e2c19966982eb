"""Playback, privacy, errors, access for everybody, and the weight of the page."""

from __future__ import annotations

import gzip
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

import melcap
from melcap.codec import Codec
from tests.helpers import SMALL, save_drawn
from tests.web.conftest import ROOT, WEB, script
from tests.web.page import Page

pytestmark = pytest.mark.web

PLAYER = "(await import('./demo/result.js')).player"
PHONE = {
    "viewport": {"width": 390, "height": 800},
    "user_agent": "Mozilla/5.0 (Linux; Android 14) AppleWebKit/537.36 Chrome/150.0 Mobile",
    "has_touch": True,
}


def player(page: Page, expression: str) -> Any:
    """Return a value of the page's player, such as its `position`."""
    return page.page.evaluate(f"async () => {PLAYER}.{expression}")


# ---- playback


def test_versions_play_at_the_same_place(used_page: Page) -> None:
    page = used_page.page
    used_page.clip("speech")
    assert page.is_checked("input[value=decoded]")
    assert not player(used_page, "playing")  # nothing plays by itself
    page.click("#play")
    page.locator("#time", has_text=re.compile("^0:01")).wait_for()
    assert page.inner_text("#play") == "Pause"
    assert player(used_page, "levels") == {"original": 0, "decoded": 1}
    before = player(used_page, "position")
    page.check("input[value=original]")
    page.wait_for_timeout(100)
    levels = player(used_page, "levels")
    assert levels["original"] == pytest.approx(1, abs=0.01)
    assert levels["decoded"] == pytest.approx(0, abs=0.01)
    assert before < player(used_page, "position") < before + 3
    page.click("#play")
    stopped = player(used_page, "position")
    assert stopped > 1
    page.wait_for_timeout(100)
    assert player(used_page, "position") == stopped
    assert page.inner_text("#play") == "Play"


def test_seeking_and_the_end(used_page: Page) -> None:
    page = used_page.page
    used_page.clip("speech")
    page.fill("#seek", "7.5")
    assert page.inner_text("#time") == "0:07 of 0:08"
    page.focus("#play")
    page.keyboard.press("Enter")
    assert page.inner_text("#play") == "Pause"
    page.locator("#play", has_text="Play").wait_for(timeout=5000)  # not after all 8 seconds
    assert page.inner_text("#time") == "0:00 of 0:08"
    assert page.evaluate("document.getElementById('playhead').style.left") == "0%"


def test_pictures_are_drawn_on_one_scale(used_page: Page) -> None:
    """The original and the decoded clip look alike, and the tokens have one pixel each."""
    used_page.clip("music")

    def pixels(name: str) -> np.ndarray[Any, Any]:
        found = used_page.page.evaluate(
            """(name) => {
              const canvas = document.getElementById(name);
              const { width, height } = canvas;
              const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
              return [width, height, ...data];
            }""",
            name,
        )
        return np.array(found[2:]).reshape(found[1], found[0], 4)[..., :3].astype(float)

    original, decoded = pixels("original-picture"), pixels("decoded-picture")
    assert original.shape == decoded.shape
    assert original.std() > 20
    assert np.abs(original - decoded).mean() < 0.3 * original.std()
    assert pixels("token-picture").shape == (12, 173, 3)


# ---- privacy


def test_nothing_is_asked_for_after_loading(page: Page, tmp_path: Path) -> None:
    """And before it, nothing of another site."""
    page.clip("music")
    assert all(url.startswith((page.site, f"blob:{page.site}")) for url in page.requests)
    page.requests.clear()
    soundfile.write(tmp_path / "own.wav", np.zeros(5000), 44100)
    page.file(tmp_path / "own.wav")
    page.page.click("#play")
    page.saved("melcap")
    page.saved("wav")
    assert [url for url in page.requests if not url.startswith("blob:")] == []
    assert page.complaints == []


FETCH = "fetch('http://127.0.0.1:9/').then(() => 'sent', (error) => String(error))"


def test_the_policy_keeps_audio_here(page: Page) -> None:
    """Neither the page nor its worker may connect to another site."""
    refused: list[str] = []
    page.page.on("console", lambda message: refused.append(message.text))
    assert "Failed to fetch" in page.page.evaluate(FETCH)
    assert "Content Security Policy" in refused[-1]
    page.clip("speech")
    (worker,) = (one for one in page.page.workers if one.url.startswith("blob:"))
    assert "Failed to fetch" in worker.evaluate(f"() => {FETCH}")
    assert "Content Security Policy" in refused[-1]


def test_a_host_that_unpacks_gzip(lite: Codec, page: Page, tmp_path: Path) -> None:
    """Some hosts send .gz files as packed content, which the browser then unpacks itself."""

    def unpacked(route: Any) -> None:
        name = route.request.url.removeprefix(page.site)
        route.fulfill(body=gzip.decompress((WEB / "dist" / name).read_bytes()))

    page.page.route("**/*.gz", unpacked)
    lite.encode(torch.zeros(1, 44100), 44100).save(tmp_path / "a.melcap", compact=True)
    page.file(tmp_path / "a.melcap")


# ---- errors


def test_files_that_are_refused(lite: Codec, used_page: Page, tmp_path: Path) -> None:
    """Each in one sentence, with what to do."""
    second = np.zeros(44100, np.float32)

    def file(name: str, data: bytes = b"", rate: int = 0, channels: int = 1) -> str:
        path = tmp_path / name
        if rate:
            soundfile.write(path, np.zeros((rate, channels)), 44100)
        else:
            path.write_bytes(data)
        return used_page.refused(path)

    soundfile.write(tmp_path / "a.aiff", second, 44100)
    assert used_page.refused(tmp_path / "a.aiff") == (
        "a.aiff cannot be decoded by this browser: choose a WAV, FLAC, MP3 or Ogg file, or convert "
        "it with the melcap command."
    )
    assert "cannot be decoded" in file("text.wav", b"no audio at all")
    assert "cannot be decoded" in file("empty.mp3")
    assert "cannot be decoded" in file("no.flac", b"fLaC")
    soundfile.write(tmp_path / "long.wav", np.zeros(11 * 60 * 8000), 8000, subtype="PCM_U8")
    assert used_page.refused(tmp_path / "long.wav") == (
        "long.wav is 11:00 long, and this page takes up to 10:00: choose a shorter file, or use "
        "the melcap command, which takes any length."
    )
    codes = lite.encode(torch.zeros(1, 44100), 44100)
    data = codes.to_bytes()
    assert file("cut.melcap", data[:-1]).startswith("cut.melcap cannot be read: the file is trunc")
    assert "damaged (wrong checksum)" in file("bad.melcap", data[:60] + b"\xff" + data[61:])
    assert "takes up to 10:00" in file(
        "long.melcap",
        lite.codes_of(torch.zeros(1, 12, 13000, dtype=torch.int32)).to_bytes(),
    )
    assert file("many.melcap", lite.encode(torch.zeros(3, 4410), 44100).to_bytes()) == (
        "many.melcap has 3 channels, and this page plays one or two: use melcap decode."
    )
    other = melcap.load(save_drawn(SMALL, tmp_path / "other.safetensors"))
    sentence = file("other.melcap", other.encode(torch.zeros(1, 4410), 44100).to_bytes())
    assert f"are of tokenizer {other.tokenizer_id} (made by {other.model})" in sentence
    assert f"{lite.model} with tokenizer {lite.tokenizer_id}: load weights of that" in sentence
    assert not used_page.page.is_visible("#action")
    used_page.clip("speech")  # all is well again


def test_many_channels_are_mixed_if_that_is_wanted(
    lite: Codec, used_page: Page, tmp_path: Path
) -> None:
    waves = np.random.default_rng(0).uniform(-0.3, 0.3, (22050, 6)).astype(np.float32)
    soundfile.write(tmp_path / "six.wav", waves, 44100, subtype="FLOAT")
    assert used_page.refused(tmp_path / "six.wav") == (
        "six.wav has 6 channels, and this page takes one or two: code a mix of them, or use the "
        "melcap command, which codes all."
    )
    used_page.page.click("#action")
    used_page.wait()
    codes = melcap.Codes.from_bytes(used_page.saved("melcap")[1])
    expected = lite.encode(torch.from_numpy(waves.mean(1)), 44100)
    assert (codes.tokens[0] == expected.tokens).float().mean() > 0.98


def test_a_failed_download_is_tried_again(page: Page) -> None:
    """The clip, the runtime and each graph can be the one that fails."""
    for pattern in ("**/music.flac", "**/*.mjs", "**/*.wasm.gz", "**/encoder.ort.gz"):
        page.page.route(pattern, lambda route: route.abort())
        page.page.click("[data-clip=music]" if "music" in pattern else "#action")
        assert "could not be fetched" in page.error()
        assert page.page.inner_text("#action") == "Try again"
        page.page.unroute(pattern)
    page.page.click("#action")
    page.wait()
    assert page.page.inner_text("#name") == "music.flac"


def test_memory_that_runs_out(page: Page) -> None:
    def failing(route: Any) -> None:
        text = (WEB / "src" / "codec.js").read_text()
        broken = text.replace("await session.run(feeds)", "(() => { throw Error('bad_alloc') })()")
        assert broken != text
        route.fulfill(body=broken, content_type="text/javascript")

    page.page.route("**/src/codec.js", failing)
    page.page.click("[data-clip=speech]")
    assert page.error() == (
        "ONNX Runtime failed (bad_alloc): if memory ran out, close other pages and use a shorter "
        "clip"
    )


@pytest.mark.parametrize("missing", ["WebAssembly", "DecompressionStream"])
def test_an_old_browser(browser: Any, site: str, missing: str) -> None:
    with Page.opened(browser, site, script=f"delete globalThis.{missing}") as page:
        page.page.click("[data-clip=speech]")
        assert page.error() == (
            f"This browser has no {missing}, which the codec needs: update it, or use another."
        )


def test_no_microphone(browser: Any, site: str) -> None:
    """Refused by the visitor, and absent."""
    with Page.opened(browser, site) as page:
        page.page.click("#record")
        assert "may not use the microphone: allow it" in page.error()
    absent = """navigator.mediaDevices.getUserMedia =
      async () => { throw new DOMException("none", "NotFoundError"); }"""
    with Page.opened(browser, site, script=absent) as page:
        page.page.click("#record")
        assert page.error() == "No microphone was found: connect one, or choose a file."


def test_cancelling(used_page: Page, tmp_path: Path) -> None:
    """The job stops without an error, and the next one works."""
    soundfile.write(tmp_path / "long.wav", np.zeros(200 * 44100), 44100)
    used_page.page.set_input_files("#file", str(tmp_path / "long.wav"))
    used_page.page.locator("#progress[value]").wait_for(state="attached")
    used_page.page.click("#cancel")
    used_page.page.locator("#cancel[hidden]").wait_for(state="attached", timeout=20_000)
    assert not used_page.page.is_visible("#alert")
    assert used_page.page.inner_text("#status") == ""
    used_page.clip("speech")


def test_a_call_stops_after_its_piece(used_page: Page) -> None:
    """The worker hears of it between two pieces of 12 seconds."""
    used_page.clip("speech")
    name, count = used_page.page.evaluate(
        """async () => {
          const { Client } = await import("./demo/client.js");
          const client = new Client();
          await client.call("prepare", { threads: 1 });
          const controller = new AbortController();
          let count = 0;
          const progress = () => ++count === 2 && controller.abort();
          const watch = { signal: controller.signal, progress };
          const waves = [new Float32Array(100 * 44100)];
          const error = await client.call("encode", { waves }, watch).catch((error) => error);
          client.worker.terminate();
          return [error.name, count];
        }"""
    )
    assert name == "AbortError"
    assert count <= 4  # of 10


# ---- for everybody


def test_dropping_a_file(used_page: Page, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(4410), 44100, subtype="PCM_16")
    used_page.page.evaluate(
        """(bytes) => {
          const files = new DataTransfer();
          files.items.add(new File([Uint8Array.from(bytes)], "dropped.wav"));
          dispatchEvent(new DragEvent("drop", { dataTransfer: files, cancelable: true }));
        }""",
        list((tmp_path / "a.wav").read_bytes()),
    )
    used_page.page.locator("#name", has_text="dropped.wav").wait_for()


def test_the_keyboard_is_enough(page: Page) -> None:
    """Every control can be reached, in the order of the page, and used."""

    def order(count: int) -> list[str]:
        found = []
        for _ in range(count):
            page.page.keyboard.press("Tab")
            name = (
                "(({ id, value, dataset }) => dataset.clip || id || value)(document.activeElement)"
            )
            found.append(page.page.evaluate(name))
        return found

    assert order(5) == ["speech", "music", "sound", "file", "record"]
    for _ in range(4):
        page.page.keyboard.press("Shift+Tab")
    page.page.keyboard.press("Enter")
    page.wait()
    assert page.page.evaluate("document.activeElement.id") == "name"  # the result is announced
    assert order(5) == ["play", "decoded", "seek", "save-melcap", "save-wav"]
    for _ in range(3):
        page.page.keyboard.press("Shift+Tab")
    page.page.keyboard.press("ArrowLeft")
    assert page.page.is_checked("input[value=original]")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(browser: Any, site: str, tmp_path: Path, scheme: str) -> None:
    """The rules of axe-core hold before, with a result, and with an error."""
    axe = (WEB / "node_modules" / "axe-core" / "axe.min.js").read_text()
    with Page.opened(browser, site, color_scheme=scheme) as page:

        def violations() -> list[str]:
            page.page.evaluate(axe)
            found = page.page.evaluate("() => axe.run()")
            return [
                f"{one['id']}: {node['html']}"
                for one in found["violations"]
                for node in one["nodes"]
            ]

        assert violations() == []
        page.clip("speech")
        assert violations() == []
        (tmp_path / "no.wav").touch()
        page.refused(tmp_path / "no.wav")
        assert violations() == []


def test_a_phone(browser: Any, site: str, tmp_path: Path) -> None:
    """It has one thread and two minutes; nothing overflows, and targets are large enough."""
    with Page.opened(browser, site, **PHONE) as page:
        assert page.page.inner_text("#limit") == "2 minutes"
        page.clip("speech")
        assert "Encoding, 1 thread" in page.figures()
        width = page.page.evaluate("document.documentElement.scrollWidth")
        assert width == 390
        for target in page.page.locator("button, .button, fieldset label, input[type=range]").all():
            if target.is_visible():
                assert target.bounding_box()["height"] >= 44, target.evaluate(
                    "one => one.outerHTML"
                )
        soundfile.write(tmp_path / "a.wav", np.zeros(150 * 8000), 8000, subtype="PCM_U8")
        assert "takes up to 2:00" in page.refused(tmp_path / "a.wav")


@pytest.mark.parametrize("site", [False], indirect=True, ids=["not isolated"])
def test_a_host_without_isolation(browser: Any, site: str) -> None:
    """A static host sends no headers of its own; the codec then has one thread."""
    with Page.opened(browser, site) as page:
        page.clip("sound")
        assert "Decoding, 1 thread" in page.figures()
        assert page.complaints == []


def test_threads_of_an_isolated_page(used_page: Page) -> None:
    used_page.clip("sound")
    cores = used_page.page.evaluate("navigator.hardwareConcurrency")
    (name,) = (name for name in used_page.figures() if name.startswith("Decoding"))
    count = min(4, cores)
    assert name == f"Decoding, {count} thread{'s' if count > 1 else ''}"


# ---- weight


def test_the_weight_of_the_page(dist: Path) -> None:
    """Page, codec and the largest clip take at most 12.5 MB of downloads, gzipped."""
    sizes = script("web/assemble.py").sizes()
    clips = max(path.stat().st_size for path in (dist / "clips").glob("*.flac"))
    assert sizes["all"] - sizes["clips"] + clips <= 12.5e6
    assert sizes["models"] > 7e6
    assert not re.search("%[A-Z]{3,}%", (dist / "index.html").read_text())


def test_the_page_is_what_the_sources_say(dist: Path) -> None:
    """`make web` was run after the last change."""
    for name in ("demo", "src"):
        for path in (WEB / name).iterdir():
            if path.name != "index.html":
                assert (dist / name / path.name).read_bytes() == path.read_bytes()
    assert (dist / "clips" / "LICENCES.txt").read_bytes() == (
        ROOT / "examples" / "audio" / "LICENCES.md"
    ).read_bytes()
