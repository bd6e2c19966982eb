"""Helpers of the tests of the command line."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
from typer.testing import Result

DATA = Path(__file__).parents[1] / "data"
ROOT = Path(__file__).parents[2]
Cli = Callable[..., Result]


def refused(result: Result, *parts: object, status: int = 1) -> str:
    """Check that a command printed one sentence to stderr and nothing to stdout; return it."""
    assert result.exit_code == status, result.output
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    for part in parts:
        assert str(part) in lines[0]
    return lines[0]


def clip(path: Path, rate: int = 44100, channels: int = 1, seconds: float = 0.3) -> Path:
    """Write a sound file of a length that is no whole number of frames or columns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    times = np.arange(int(seconds * rate) + 1) / rate
    wave = [0.3 * np.sin(2 * np.pi * 330 * (channel + 1) * times) for channel in range(channels)]
    soundfile.write(path, np.stack(wave, axis=1).astype(np.float32), rate)
    return path


def names(folder: Path) -> list[str]:
    """List all files in a folder, hidden or not."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def transcode_all(folder: Path, clips: list[str], options: list[str]) -> None:
    """Transcode clips, one after the other; write Linux's peak KiB after each to a file."""
    from melcap.cli.commands import app

    os.chdir(folder)
    peaks = []
    for name in clips:
        app(
            ["transcode", f"{name}.wav", "-o", f"{name}.flac", "-q", *options],
            standalone_mode=False,
        )
        status = Path("/proc/self/status").read_text().splitlines()
        peaks.append(next(line for line in status if "VmHWM" in line).split()[1])
    Path("peaks").write_text("\n".join(peaks))


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
