"""The options of a run of `tokenize`."""

from __future__ import annotations

import os
from dataclasses import dataclass

from melcap.bulk.rows import COLUMNS
from melcap.bulk.shards import FORMATS
from melcap.errors import InputError

ENGINES = ("local", "ray")


@dataclass(frozen=True)
class Options:
    """Options of a run that makes tokens of a collection.

    `format`, `compact`, `mono` and `keep` decide what is written, and must stay the same for one
    token set; `compact` is for the format "melcap" (see `Codes.to_bytes`), `keep` names columns of
    the manifests that go into the shards. New shards have up to
    `shard_clips` rows. The others are for speed; None is a choice by the machine:
    readers are processes that decode audio, lanes threads that encode it, each with so many threads
    of torch, in batches of `batch_seconds`. With `engine` "ray" a cluster takes the place of
    readers, and lanes are its actors, which compute on `device` ("cpu" or "cuda"; None is that of
    the codec at hand) with `backend`.
    """

    format: str = "parquet"
    compact: bool = False
    mono: bool = False
    keep: tuple[str, ...] = ()
    shard_clips: int = 1000
    engine: str = "local"
    device: str | None = None
    backend: str = "auto"
    readers: int | None = None
    lanes: int | None = None
    threads: int | None = None
    batch_seconds: float | None = None

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise InputError(f"format must be one of {', '.join(FORMATS)}, not {self.format!r}")
        if self.compact and self.format != "melcap":
            raise InputError("compact is for .melcap files: use --format melcap with --compact")
        if self.engine not in ENGINES:
            raise InputError(f"engine must be one of {', '.join(ENGINES)}, not {self.engine!r}")
        for name in ("shard_clips", "readers", "lanes", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} must be at least 1, not {value}")
        self._check_keep()

    def _check_keep(self) -> None:
        if self.keep and self.format == "melcap":
            raise InputError(
                "a .melcap file has no room for columns of a manifest: use --format parquet or "
                "webdataset with --keep"
            )
        seen = set(COLUMNS)
        for name in self.keep:
            if not name or name.lower() in seen:
                raise InputError(
                    f"{name!r} cannot be kept: a token set has one column of that name "
                    f"({', '.join(COLUMNS)} are its own); rename it in the manifest"
                )
            seen.add(name.lower())

    def machine(self, device: str) -> tuple[int, int, int, float]:
        """(readers, lanes, threads, batch_seconds), chosen where they were not given."""
        cores = _cores()
        if device == "cpu":
            lanes = self.lanes or min(cores, 16)
            threads = self.threads or max(1, cores // lanes)
            return self.readers or max(1, cores // 4), lanes, threads, self.batch_seconds or 0.0
        lanes = self.lanes or 2
        return self.readers or cores, lanes, self.threads or 1, self.batch_seconds or 240.0


def _cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
