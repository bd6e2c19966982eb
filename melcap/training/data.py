"""Training audio: decoded once into one memory-mapped int16 file.

`build_cache` turns tar shards or folders of audio into a cache folder and `AudioCache` opens it. A
folder given to `build_cache` looks like this afterwards:

    index.json           the key of the sources, and per clip: name, class, start, length
    audio-<key>.int16    every clip, mono at 44.1 kHz, one after the other
"""

from __future__ import annotations

import hashlib
import json
import logging
import multiprocessing
import os
import shutil
import tarfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from melcap.errors import InputError
from melcap.io.files import replacing

SAMPLE_RATE = 44_100
FULL_SCALE = 32_767
_FORMAT = 1
_AUDIO_SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff"})
_CLIPS_PER_UNIT = 64
_BLOCK = 1 << 18

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Clip:
    """One clip of the cache; `start` and `length` count samples at 44.1 kHz."""

    name: str
    label: str
    start: int
    length: int


@dataclass(frozen=True)
class _Unit:
    """A run of one source's audio files: what one worker decodes at a time and may be resumed."""

    source: str
    names: tuple[str, ...]
    key: str


def build_cache(sources: Sequence[Path], cache: Path, workers: int = 2) -> Path:
    """Decode tar shards and folders of audio into the folder `cache`, and return that folder.

    A clip's class is the name of the folder that holds it. Everything is mixed to mono, resampled
    to 44.1 kHz and clamped to [-1, 1]. A cache made from the same sources (names and sizes of the
    shards, or of the files in a folder) is left as it is; an interrupted build goes on where it
    stopped, and an old cache stays valid until the new one is complete. Files that cannot be
    decoded are left out, with a warning.

    With more than one worker, processes are spawned: call it from a module guarded by
    `if __name__ == "__main__"`.

    Raises InputError when a source is missing or no source holds audio that can be decoded.
    """
    units = [unit for source in sources for unit in _units(Path(source))]
    key = _digest([_FORMAT, SAMPLE_RATE, [unit.key for unit in units]])
    if _is_built(cache, key):
        return cache
    if not units:
        raise InputError(
            f"no audio files in {', '.join(map(str, sources)) or 'an empty list of sources'}: "
            "give tar shards or folders that hold wav, flac, ogg, opus or mp3 files"
        )
    parts = cache / "parts"
    parts.mkdir(parents=True, exist_ok=True)
    _decode_all(units, parts, workers)

    clips: list[Clip] = []
    audio = cache / f"audio-{key}.int16"
    partial = audio.with_suffix(f".{os.getpid()}.tmp")
    position = 0
    with partial.open("wb") as out:
        for unit in units:
            for entry in json.loads((parts / f"{unit.key}.json").read_text()):
                clips.append(Clip(entry["name"], entry["label"], position, entry["length"]))
                position += entry["length"]
            with (parts / f"{unit.key}.int16").open("rb") as part:
                shutil.copyfileobj(part, out, 1 << 22)
    if not clips:
        partial.unlink()
        raise InputError(f"none of the audio files in {', '.join(map(str, sources))} can be read")
    os.replace(partial, audio)
    index = {"format": _FORMAT, "key": key, "sample_rate": SAMPLE_RATE, "audio": audio.name}
    _write_json(cache / "index.json", {**index, "clips": [asdict(clip) for clip in clips]})
    for old in cache.glob("audio-*"):
        if old != audio:
            old.unlink()
    shutil.rmtree(parts)
    return cache


def _units(source: Path) -> Iterator[_Unit]:
    """List a source's audio files, and cut the list into units."""
    if source.is_dir():
        paths = sorted(path for path in source.rglob("*") if path.is_file())
        sizes = {path.relative_to(source).as_posix(): path.stat().st_size for path in paths}
    elif source.is_file():
        try:
            with tarfile.open(source) as shard:
                sizes = {member.name: member.size for member in shard if member.isfile()}
        except tarfile.TarError as error:
            raise InputError(
                f"{source} is not a tar shard ({error}): give a tar or a folder"
            ) from error
    else:
        raise InputError(f"the training source {source} does not exist: give a tar or a folder")
    names = [name for name in sizes if PurePosixPath(name).suffix.lower() in _AUDIO_SUFFIXES]
    for first in range(0, len(names), _CLIPS_PER_UNIT):
        chosen = tuple(names[first : first + _CLIPS_PER_UNIT])
        what = [source.name, [[name, sizes[name]] for name in chosen]]
        yield _Unit(str(source), chosen, _digest([_FORMAT, SAMPLE_RATE, first, what]))


def _decode_all(units: Sequence[_Unit], parts: Path, workers: int) -> None:
    from rich.progress import Progress

    with Progress(transient=True) as progress:
        task = progress.add_task("decoding", total=sum(len(unit.names) for unit in units))
        if workers <= 1:
            for unit in units:
                progress.advance(task, _decode_unit(unit, parts))
            return
        # Spawned, not forked: torch's and BLAS's threads do not survive a fork.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, mp_context=context) as pool:
            jobs = [pool.submit(_decode_unit, unit, parts) for unit in units]
            for job in as_completed(jobs):
                progress.advance(task, job.result())


def _decode_unit(unit: _Unit, parts: Path) -> int:
    """Write a unit's samples and, last, the list of its clips: the list marks it as complete."""
    listing = parts / f"{unit.key}.json"
    if listing.exists():
        return len(unit.names)
    source = Path(unit.source)
    shard = None if source.is_dir() else tarfile.open(source)  # noqa: SIM115
    entries: list[dict[str, str | int]] = []
    samples = parts / f"{unit.key}.int16"
    partial = samples.with_suffix(f".{os.getpid()}.tmp")
    with partial.open("wb") as out:
        for name in unit.names:
            start = out.tell()
            try:
                if shard is None:
                    data = (source / name).read_bytes()
                else:
                    member = shard.extractfile(name)
                    data = member.read() if member is not None else b""
                length = _decode(BytesIO(data), out)
            except (OSError, RuntimeError, ValueError, tarfile.TarError) as error:
                log.warning("left out %s of %s: %s", name, source, error)
                length = 0
            if length == 0:
                out.seek(start)
                out.truncate()
                continue
            label = PurePosixPath(name).parent.name or source.stem
            entries.append({"name": name, "label": label, "length": length})
    if shard is not None:
        shard.close()
    os.replace(partial, samples)
    _write_json(listing, entries)
    return len(unit.names)


def _decode(audio: BinaryIO, out: BinaryIO) -> int:
    """Append a file's samples to `out` as mono int16 at 44.1 kHz; the number of samples."""
    import soundfile
    import soxr

    total = 0
    with soundfile.SoundFile(audio) as file:
        stream = soxr.ResampleStream(file.samplerate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")
        last = False
        while not last:
            block = file.read(_BLOCK, dtype="float32", always_2d=True)
            last = len(block) < _BLOCK
            wave = stream.resample_chunk(block.mean(axis=1), last=last)
            wave = np.nan_to_num(np.clip(wave, -1.0, 1.0))
            out.write(np.rint(wave * FULL_SCALE).astype("<i2").tobytes())
            total += len(wave)
    return total


def _is_built(cache: Path, key: str) -> bool:
    try:
        return AudioCache(cache).key == key
    except InputError:
        return False


def _digest(what: object) -> str:
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]


def _write_json(path: Path, what: object) -> None:
    with replacing(path) as partial:
        partial.write_text(json.dumps(what))


class AudioCache:
    """A cache folder made by `build_cache`, opened for reading.

    `clips`, `classes` (sorted names), `hours` of audio in all, and `samples`: every clip's audio,
    a memory-mapped int16 [n] array at 44.1 kHz.

    Raises InputError when the folder holds no complete cache.
    """

    def __init__(self, folder: Path) -> None:
        try:
            index = json.loads((folder / "index.json").read_text())
        except (OSError, ValueError) as error:
            raise InputError(
                f"{folder} holds no audio cache ({error}): make one with build_cache"
            ) from error
        if index.get("format") != _FORMAT:
            raise InputError(f"{folder} was made by another version: make it again")
        self.key: str = index["key"]
        self.clips: tuple[Clip, ...] = tuple(Clip(**clip) for clip in index["clips"])
        self.classes: tuple[str, ...] = tuple(sorted({clip.label for clip in self.clips}))
        audio = folder / index["audio"]
        total = sum(clip.length for clip in self.clips)
        if not audio.is_file() or audio.stat().st_size != 2 * total:
            raise InputError(f"{audio} is missing or cut short: make the cache again")
        self.samples: npt.NDArray[np.int16] = np.memmap(audio, dtype="<i2", mode="r")
        self.hours: float = total / SAMPLE_RATE / 3600

    def wave(self, clip: Clip) -> npt.NDArray[np.float32]:
        """A whole clip as float32 [length] in [-1, 1]."""
        part = self.samples[clip.start : clip.start + clip.length]
        return part.astype(np.float32) / np.float32(FULL_SCALE)
