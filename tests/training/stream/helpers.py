"""Shards of noise, and streams of them that decode in threads."""

from __future__ import annotations

import io
import os
import signal
import tarfile
from collections.abc import Iterator, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from melcap.training.audio_cache import SAMPLE_RATE
from melcap.training.stream import process
from melcap.training.stream.lane import Event, Jumps, Opened, Plan, Position


def wav(samples: int, seed: int = 0, peak: float = 0.5) -> bytes:
    """Return a wav file of noise."""
    return encoded(np.random.default_rng(seed).uniform(-peak, peak, samples))


def encoded(wave: np.ndarray) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, wave, SAMPLE_RATE, format="WAV", subtype="PCM_16")
    return file.getvalue()


def write_tar(path: Path, members: Mapping[str, bytes]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return str(path)


def offset_of(shard: str, number: int) -> int:
    """Return where the header of a member begins."""
    with tarfile.open(shard) as tar:
        return tar.getmembers()[number].offset


def shards(folder: Path, count: int, clips: int = 6) -> list[str]:
    """Write shards of clips of 200 to 700 samples, in the classes music and speech in turn."""
    lengths = np.random.default_rng(0).integers(200, 700, (count, clips))
    return [
        write_tar(
            folder / f"shard-{shard}.tar",
            {
                f"{('music', 'speech')[clip % 2]}/{shard}-{clip}.wav": wav(
                    int(lengths[shard, clip]), 1000 * shard + clip
                )
                for clip in range(clips)
            },
        )
        for shard in range(count)
    ]


def dying(connection: Connection, plan: Plan, at: Position, jumps: Jumps) -> None:
    """Serve a lane in a process that dies while it decodes a clip named deadly."""
    before = process.events

    def events(*given: Any) -> Iterator[Event]:
        for event in before(*given):
            yield event
            if isinstance(event, Opened) and "deadly" in event.name:
                flag = Path(os.environ["MELCAP_TEST_FLAG"])
                if "once" not in event.name or not flag.exists():
                    flag.touch()
                    os.kill(os.getpid(), signal.SIGKILL)

    process.events = events  # type: ignore[assignment]
    process.serve(connection, plan, at, jumps)
