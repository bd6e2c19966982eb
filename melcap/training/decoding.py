"""Decoding of training audio: tar shards and folders become an `AudioCache`.

Importing this module imports no torch, so worker processes that decode start quickly.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tarfile
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, as_completed
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from melcap.audio import AudioReader, Resampler
from melcap.errors import InputError, MelcapError
from melcap.io.audio.input_file import AudioFile
from melcap.io.files import replacing
from melcap.io.suffixes import is_audio
from melcap.processes import executor
from melcap.training.audio_cache import FORMAT, FULL_SCALE, SAMPLE_RATE, AudioCache, Clip

_CLIPS_PER_UNIT = 64

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Unit:
    """Some audio files of a source, which one worker decodes at a time."""

    source: str
    names: tuple[str, ...]
    key: str


def build_cache(sources: Sequence[Path], cache: Path, workers: int = 2) -> Path:
    """Decode tar shards and folders of audio into the folder `cache`, and return that folder.

    A clip's class is the name of the folder that holds it. Everything is mixed to mono, resampled
    to 44.1 kHz and clamped to [-1, 1]. A cache made from the same sources (names and sizes of the
    shards, or of the files in a folder) is not changed. A build that was interrupted continues
    after the last files that were decoded, and an old cache stays valid until the new one is
    complete. Files are read with `melcap.audio`; those that it refuses are left out, with a
    warning.

    Args:
        sources: tar shards, and folders that are searched for audio files.
        cache: the folder to write.
        workers: the number of processes. With more than one, processes are spawned: call this from
            a module guarded by `if __name__ == "__main__"`.

    Returns:
        `cache`.

    Raises:
        InputError: when a source is missing or no source holds audio that can be decoded.
    """
    units = [unit for source in sources for unit in _units(Path(source))]
    key = _digest([FORMAT, SAMPLE_RATE, [unit.key for unit in units]])
    if _is_built(cache, key):
        return cache
    if not units:
        raise InputError(
            f"no audio files in {', '.join(map(str, sources)) or 'an empty list of sources'}: "
            "give tar shards or folders that hold audio files (wav, flac, ogg, mp3, m4a ...)"
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
    index = {"format": FORMAT, "key": key, "sample_rate": SAMPLE_RATE, "audio": audio.name}
    _write_json(cache / "index.json", {**index, "clips": [asdict(clip) for clip in clips]})
    for old in cache.glob("audio-*"):
        if old != audio:
            old.unlink()
    shutil.rmtree(parts)
    return cache


def _units(source: Path) -> Iterator[_Unit]:
    """Yield a source's audio files in units."""
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
    names = [name for name in sizes if is_audio(name)]
    for first in range(0, len(names), _CLIPS_PER_UNIT):
        chosen = tuple(names[first : first + _CLIPS_PER_UNIT])
        what = [source.name, [[name, sizes[name]] for name in chosen]]
        yield _Unit(str(source), chosen, _digest([FORMAT, SAMPLE_RATE, first, what]))


def _decode_all(units: Sequence[_Unit], parts: Path, workers: int) -> None:
    from rich.progress import Progress

    with Progress(transient=True) as progress, executor(workers) as pool:
        task = progress.add_task("decoding", total=sum(len(unit.names) for unit in units))

        def submit(unit: _Unit) -> Future[None]:
            job = pool.submit(_decode_unit, unit, parts)
            job.add_done_callback(lambda _: progress.advance(task, len(unit.names)))
            return job

        for job in as_completed([submit(unit) for unit in units]):
            job.result()


def _decode_unit(unit: _Unit, parts: Path) -> None:
    """Write a unit's samples and, last, the list of its clips: the list marks it as complete."""
    listing = parts / f"{unit.key}.json"
    if listing.exists():
        return
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
                    length = _decode(source / name, out)
                else:
                    # In memory it has no name: errors would give it that of the shard.
                    member = shard.extractfile(name)
                    length = _decode(BytesIO(member.read() if member else b""), out)
            except (MelcapError, OSError, tarfile.TarError) as error:
                log.warning("left out %s of %s: %s", name, source, error)
                out.seek(start)
                out.truncate()
                continue
            label = PurePosixPath(name).parent.name or source.stem
            entries.append({"name": name, "label": label, "length": length})
    if shard is not None:
        shard.close()
    os.replace(partial, samples)
    _write_json(listing, entries)


def decoded(audio: AudioFile) -> Iterator[npt.NDArray[np.int16]]:
    """Yield the samples of an audio file, block by block: mono int16 at 44.1 kHz, clamped.

    Raises:
        AudioFileError: for a file that `AudioReader` refuses.
    """
    with AudioReader(audio) as reader:
        resampler = Resampler(reader.sample_rate, SAMPLE_RATE, 1)
        for block in reader.blocks():
            yield _int16(resampler.push(block.mean(axis=0, keepdims=True)))
        yield _int16(resampler.flush())


def _decode(audio: AudioFile, out: BinaryIO) -> int:
    """Append a file's samples to `out` as little-endian int16; return the number of samples."""
    total = 0
    for samples in decoded(audio):
        out.write(samples.astype("<i2").tobytes())
        total += len(samples)
    return total


def _int16(wave: npt.NDArray[np.float32]) -> npt.NDArray[np.int16]:
    return np.rint(np.clip(wave[0], -1.0, 1.0) * FULL_SCALE).astype(np.int16)


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
