"""The clips of the listening page, which docs/listening.py makes."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from melcap import audio, encode_file
from melcap.evaluation.peers.opus import Opus
from tests.docs.pages import ROOT

RATE = 44100


def _script() -> Any:
    spec = importlib.util.spec_from_file_location("listening", ROOT / "docs" / "listening.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


listening = _script()


def _tone(hertz: float, seconds: float) -> npt.NDArray[np.float32]:
    wave = 0.3 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE)
    return wave[None].astype(np.float32)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of two short clips with all frequencies in them."""
    folder = tmp_path_factory.mktemp("clips")
    for seed, (name, seconds) in enumerate((("short", 0.7), ("longer", 1.1))):
        noise = np.random.default_rng(seed).normal(0, 0.1, round(seconds * RATE))
        audio.write(folder / f"{name}.flac", noise[None].astype(np.float32), RATE)
    return folder


@pytest.fixture(scope="module")
def made(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder that the script fills."""
    folder: Path = tmp_path_factory.mktemp("made") / "new"
    listening.write(folder, clips)
    return folder


@pytest.fixture(scope="module")
def listed(made: Path) -> list[dict[str, Any]]:
    """Return the list of clips."""
    clips: list[dict[str, Any]] = json.loads((made / "listening.json").read_text())["clips"]
    return clips


@pytest.mark.slow
def test_the_list_names_every_file(made: Path, listed: list[dict[str, Any]]) -> None:
    assert {clip["clip"] for clip in listed} == {"short", "longer"}
    files = [clip["picture"] for clip in listed]
    files += [each["file"] for clip in listed for each in clip["versions"]]
    assert sorted([*files, "listening.json"]) == sorted(path.name for path in made.iterdir())


@pytest.mark.slow
def test_all_versions_have_the_samples_of_the_original(
    clips: Path, made: Path, listed: list[dict[str, Any]]
) -> None:
    for clip in listed:
        original, _ = audio.read(clips / f"{clip['clip']}.flac")
        versions = {}
        for each in clip["versions"]:
            versions[each["version"]], rate = audio.read(made / each["file"])
            assert rate == RATE
            assert versions[each["version"]].shape == original.shape
        assert clip["seconds"] == original.shape[1] / RATE
        assert np.array_equal(versions.pop("original"), original)
        assert list(versions) == ["melcap", "opus-6", "opus-12", "opus-16"]
        decoded = [original, *versions.values()]
        for number, one in enumerate(decoded):
            assert not any(np.array_equal(one, other) for other in decoded[:number])


@pytest.mark.slow
def test_rates_are_those_of_the_bytes(
    clips: Path, listed: list[dict[str, Any]], tmp_path: Path
) -> None:
    for clip in listed:
        source = clips / f"{clip['clip']}.flac"
        wave = audio.read(source)[0][0]
        sizes = {f"opus-{kbps}": Opus(kbps).encode(wave, RATE).size for kbps in (6, 12, 16)}
        assert sizes["opus-6"] < sizes["opus-12"] < sizes["opus-16"]
        sizes["melcap"] = encode_file(source, tmp_path / f"{source.stem}.melcap").file_bytes
        sizes["original"] = source.stat().st_size
        assert {each["version"]: each["bytes"] for each in clip["versions"]} == sizes
        for each in clip["versions"]:
            assert each["kbps"] == pytest.approx(each["bytes"] * 8 * RATE / len(wave) / 1000)


@pytest.mark.slow
def test_every_version_has_a_row_with_its_rate_and_player(
    made: Path, listed: list[dict[str, Any]]
) -> None:
    text = listening.players(made)
    rows = re.findall(r'^\| ([^|]+) \| ([\d.]+) \| <audio .*src="\.\./clips/(.+?)"', text, re.M)
    assert rows == [
        (each["label"], f"{each['kbps']:.2f}", each["file"])
        for clip in listed
        for each in clip["versions"]
    ]
    assert re.findall(r"\(clips/(.+?)\)", text) == [clip["picture"] for clip in listed]


def test_clips_of_another_rate_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    audio.write(tmp_path / "slow.flac", _tone(440, 0.5), 22050)
    words = ["listening.py", str(tmp_path / "out"), "--clips", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit, match=r"slow\.flac must be mono at 44100 Hz"):
        listening.main()


def test_a_python_that_fails_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho no torch here >&2\nexit 3\n")
    python.chmod(0o755)
    monkeypatch.setenv("MELCAP_PYTHON", str(python))
    with pytest.raises(RuntimeError, match=f"{python}.*no torch here"):
        listening.write_apart(tmp_path / "out")
