"""The picture of a clip is a valid file, with correct axes and one scale for both spectrograms."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import melcap
from melcap import audio
from melcap.audio_codec import AudioCodec
from melcap.base_codec import BaseCodec
from melcap.cli import picture as cli_plot
from melcap.cli.commands import app
from melcap.codec import Codec
from melcap.errors import InputError, MelcapError
from melcap.io import container
from melcap.plot.spectrogram import MEL, RANGE_DB, write_picture
from melcap.pretrained import save
from tests.helpers import noise
from tests.model.base.published import TINY, codec_of, with_windows

RATE = 44100
GRID = np.arange(12 * 22).reshape(12, 22)

pytest.importorskip("matplotlib")


def tone(hz: float, seconds: float = 1, rate: int = RATE, amplitude: float = 0.5) -> Any:
    times = np.arange(int(seconds * rate)) / rate
    return (amplitude * np.sin(2 * np.pi * hz * times)).astype(np.float32)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., list[Any]]:
    """Return a function that draws a picture and returns its panels without the colour bars."""
    from matplotlib.figure import Figure

    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda self, path: Path(path).touch())
    original = Figure.subplots

    def subplots(self: Any, *arguments: Any, **options: Any) -> Any:
        figures.append(original(self, *arguments, **options))
        return figures[-1]

    monkeypatch.setattr(Figure, "subplots", subplots)

    def call(*arguments: Any, **options: Any) -> list[Any]:
        write_picture(tmp_path / "x.png", *arguments, **options)
        return list(figures[-1])

    return call


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> AudioCodec:
    """Return a codec of the published architecture with short windows, from a file."""
    path = tmp_path_factory.mktemp("base") / "base.safetensors"
    save(with_windows(codec_of(TINY[0]), 12), path)
    return melcap.load(path)


def image(panel: Any) -> Any:
    (found,) = panel.get_images()
    return found


class TestPicture:
    @pytest.mark.slow
    def test_a_png_and_nothing_else(self, tmp_path: Path) -> None:
        from matplotlib.image import imread

        path = tmp_path / "x.png"
        write_picture(path, tone(440), tone(880), GRID, RATE, "title")
        pixels = imread(path)
        assert min(pixels.shape[:2]) > 600
        assert pixels.std() > 0.1
        assert list(tmp_path.iterdir()) == [path]

    @pytest.mark.parametrize("rate", [16000, 44100, 96000])
    @pytest.mark.parametrize("hz", [500, 1000, 4000])
    def test_a_tone_is_at_its_tick(
        self, drawn: Callable[..., list[Any]], hz: int, rate: int
    ) -> None:
        for panel in drawn(tone(hz, rate=rate), tone(hz, rate=rate), GRID, rate, "t")[:2]:
            mel = image(panel).get_array()
            loudest = int(mel[:, 20:-20].mean(axis=1).argmax()) + 0.5
            labels = [label.get_text() for label in panel.get_yticklabels()]
            at = dict(zip(labels, panel.get_yticks(), strict=True))
            assert abs(at[{500: "500", 1000: "1k", 4000: "4k"}[hz]] - loudest) <= 1

    def test_one_scale_for_both(self, drawn: Callable[..., list[Any]]) -> None:
        before, after, _ = drawn(tone(440), tone(440, amplitude=0.05), GRID, RATE, "t")
        assert image(before).get_clim() == image(after).get_clim() == (-RANGE_DB, 0)
        assert image(before).get_array().max() == 0
        assert image(after).get_array().max() == pytest.approx(-20, abs=0.1)

    def test_silence_is_black(self, drawn: Callable[..., list[Any]]) -> None:
        silence = np.zeros(RATE, np.float32)
        for panel in drawn(silence, silence, GRID, RATE, "t")[:2]:
            assert image(panel).get_array().max() <= -RANGE_DB

    def test_the_time_axes_agree(self, drawn: Callable[..., list[Any]]) -> None:
        panels = drawn(tone(440), tone(440), GRID, RATE, "t", start=3.0, column_seconds=0.05)
        for panel in panels:
            assert panel.get_xlim() == (3, 4)
            assert panel.get_xlabel() == ("seconds" if panel is panels[-1] else "")
        frames = -(-RATE // MEL.hop)
        assert image(panels[0]).get_extent()[:2] == pytest.approx([3, 3 + frames * 256 / RATE])
        assert image(panels[2]).get_extent()[:2] == pytest.approx([3, 3 + 22 * 0.05])

    def test_the_tokens_are_all_there(self, drawn: Callable[..., list[Any]]) -> None:
        *_, panel = drawn(None, tone(440), GRID, RATE, "t", codebook_size=300)
        assert np.array_equal(image(panel).get_array(), GRID)
        assert image(panel).get_clim() == (0, 299)
        assert [label.get_text() for label in panel.get_yticklabels()] == ["1", "4", "8", "12"]

    def test_without_a_before(self, drawn: Callable[..., list[Any]]) -> None:
        titles = [panel.get_title("left") for panel in drawn(None, tone(440), GRID, RATE, "t")]
        assert titles == ["decoded", "tokens: 12 rows x 22 columns"]

    @pytest.mark.parametrize(
        ("name", "wave", "tokens"),
        [
            ("x.jpg", tone(440), GRID),
            ("x.png", tone(440)[None], GRID),
            ("x.png", tone(440)[:0], GRID),
            ("x.png", tone(440), GRID[0]),
            ("x.png", tone(440), GRID[:, :0]),
        ],
    )
    def test_arguments_that_do_not_fit(
        self, tmp_path: Path, name: str, wave: Any, tokens: Any
    ) -> None:
        with pytest.raises(InputError):
            write_picture(tmp_path / name, wave, wave, tokens, RATE, "t")
        assert not list(tmp_path.iterdir())

    def test_without_matplotlib(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
        with pytest.raises(MelcapError, match=r'pip install "melcap\[plot\]"'):
            write_picture(tmp_path / "x.png", None, tone(440), GRID, RATE, "t")

    def test_a_failure_leaves_the_old_picture(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from matplotlib.figure import Figure

        def full(self: Any, path: Path) -> None:
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(Figure, "savefig", full)
        target = tmp_path / "x.png"
        target.write_text("old")
        with pytest.raises(MelcapError, match=r"x\.png: cannot be written: No space left"):
            write_picture(target, None, tone(440), GRID, RATE, "t")
        assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


class TestPartOfAFile:
    """Arguments of `write_picture` when `melcap plot` shows a part of a file."""

    @pytest.fixture
    def shown(self, codec: Codec, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
        caught: list[Any] = []
        monkeypatch.setattr(
            cli_plot,
            "write_picture",
            lambda *arguments, **options: caught.append((arguments, options)),
        )

        def call(source: Path, own: AudioCodec = codec, **part: Any) -> Any:
            cli_plot.picture_of_file(source, Path("x.png"), own, **part)
            (_, before, after, tokens, rate, title), options = caught[-1]
            assert (rate, title) == (RATE, f"{source.name}, {own.bitrate / 1000:.2f} kbps")
            assert options["codebook_size"] == own.vocab_size
            assert options["column_seconds"] == own.config.column_samples / RATE
            assert options["start"] == part.get("start", 0)
            return before, after, tokens

        return call

    @pytest.fixture
    def stereo(self, tmp_path: Path) -> Path:
        audio.write(tmp_path / "a.wav", noise(2, 3 * RATE).numpy(), RATE)
        return tmp_path / "a.wav"

    def test_of_audio(self, shown: Callable[..., Any], stereo: Path, codec: Codec) -> None:
        whole, _ = audio.read(stereo)
        before, after, tokens = shown(stereo, start=0.5, seconds=2, channel=2)
        assert np.array_equal(before, whole[1, RATE // 2 : RATE * 5 // 2])
        codes = codec.encode(before, RATE)
        assert np.array_equal(tokens, codes.tokens)
        assert np.array_equal(after, codec.decode(codes))

    def test_of_audio_at_another_rate(self, shown: Callable[..., Any], tmp_path: Path) -> None:
        audio.write(tmp_path / "a.wav", noise(1, 8000).numpy(), 8000)
        before, after, tokens = shown(tmp_path / "a.wav", seconds=0.5)
        assert len(before) == len(after) == RATE // 2
        assert tokens.shape == (3, 22)

    @pytest.mark.parametrize("start", [0, 1.0, 2.6])
    def test_of_tokens(
        self, shown: Callable[..., Any], stereo: Path, codec: Codec, start: float
    ) -> None:
        """The samples are those that decoding the whole file returns there."""
        path = stereo.with_suffix(".melcap")
        melcap.encode_file(stereo, path, codec)
        _, stored = container.read(path)
        columns = stored.shape[2]
        codes = melcap.Codes(
            torch.from_numpy(stored),
            (columns,) * 2,
            (columns * 1024,) * 2,
            RATE,
            codec.tokenizer_id,
        )
        whole = codec.decode(codes).numpy()
        before, after, tokens = shown(path, start=start, seconds=1, channel=2)
        first = int(start * RATE) // 1024
        last = min(columns, first + 43)
        assert before is None
        assert np.array_equal(tokens, stored[1, :, first:last])
        assert np.abs(after - whole[1, first * 1024 : last * 1024]).max() < 1e-5

    @pytest.mark.parametrize(
        ("start", "columns", "decoded"),
        [
            (0, 10, (0, 12)),
            (0, 11, (0, 24)),
            (13, 9, (0, 24)),
            (14, 8, (12, 24)),
            (23, 4, (12, 36)),
            (27, 30, (24, 65)),
            (62, 9, (48, 65)),
        ],
    )
    def test_of_tokens_of_a_base_codec(
        self,
        shown: Callable[..., Any],
        stereo: Path,
        base: AudioCodec,
        monkeypatch: pytest.MonkeyPatch,
        start: int,
        columns: int,
        decoded: tuple[int, int],
    ) -> None:
        """Only the windows that the part depends on are decoded: 2 columns are the context.

        The file has 65 columns in the windows 0, 12, 24, 36, and from 48 to its end.
        """
        path = stereo.with_suffix(".melcap")
        melcap.encode_file(stereo, path, base)
        stored = torch.from_numpy(container.read(path)[1])
        whole = base.decode(base.codes_of(stored)).numpy()
        asked, decode = [], BaseCodec.decode
        monkeypatch.setattr(
            BaseCodec, "decode", lambda self, codes: (asked.append(codes), decode(self, codes))[1]
        )
        part = {"start": (start + 0.5) * 2048 / RATE, "seconds": columns * 2048 / RATE}
        before, after, tokens = shown(path, base, channel=2, **part)
        first, last = start, min(65, start + columns)
        assert before is None
        assert np.array_equal(tokens, stored[1, :, first:last])
        assert np.abs(after - whole[1, first * 2048 : last * 2048]).max() < 1e-5
        assert torch.equal(asked[0].tokens, stored[1, :, slice(*decoded)])

    def test_of_audio_with_a_base_codec(
        self, shown: Callable[..., Any], stereo: Path, base: AudioCodec
    ) -> None:
        """The part is coded by itself, from its own beginning on."""
        before, after, tokens = shown(stereo, base, start=0.5, seconds=1)
        codes = base.encode(before, RATE)
        assert np.array_equal(tokens, codes.tokens)
        assert np.array_equal(after, base.decode(codes))

    @pytest.mark.slow
    def test_the_command_with_a_base_codec(self, stereo: Path, tmp_path: Path) -> None:
        save(codec_of(TINY[0]), tmp_path / "base.safetensors")
        weights = ["--weights", str(tmp_path / "base.safetensors")]
        for words in (["encode"], ["plot"], ["plot", "--out", str(tmp_path / "b.png")]):
            source = stereo.with_suffix(".melcap") if "--out" in words else stereo
            done = CliRunner().invoke(app, [words[0], str(source), *words[1:], *weights])
            assert done.exit_code == 0, done.output
        assert {"a.melcap", "a.png", "b.png"} < {path.name for path in tmp_path.iterdir()}

    def test_missing_channels_and_times_are_refused(
        self, shown: Callable[..., Any], stereo: Path, codec: Codec
    ) -> None:
        melcap.encode_file(stereo, stereo.with_suffix(".melcap"), codec)
        for source in (stereo, stereo.with_suffix(".melcap")):
            with pytest.raises(InputError, match="has no channel 3: it has 2"):
                shown(source, channel=3)
            with pytest.raises(InputError, match=r"ends before 3 s: it has 3\.00 s"):
                shown(source, start=3)
