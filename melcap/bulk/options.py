"""The options of a run of `tokenize`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from melcap.bulk.token_sets.rows import COLUMNS
from melcap.bulk.token_sets.shards import FORMATS
from melcap.errors import InputError
from melcap.processes import usable_cores

ENGINES = ("local", "ray")


class Workers(NamedTuple):
    """The numbers of workers of a run, and the audio in a batch in seconds."""

    readers: int
    encoders: int
    threads: int
    batch_seconds: float


@dataclass(frozen=True)
class Options:
    """Options of a run that makes tokens of a collection.

    `format`, `compact`, `mono` and `keep` decide what is written, and must stay the same for one
    token set. The others change the speed alone; None chooses by the machine.

    Attributes:
        format: "parquet", "webdataset" or "melcap".
        compact: whether `.melcap` files are compact (see `Codes.to_bytes`).
        mono: whether to mix the channels of a clip, instead of coding each.
        keep: the columns of the manifests that go into the shards.
        shard_clips: the most rows of a new shard.
        engine: "local", or "ray" for a cluster.
        device: the device of Ray's actors, "cpu" or "cuda"; None for that of the codec.
        backend: the backend of Ray's actors.
        readers: the processes that decode audio; Ray has its own.
        encoders: the threads that encode, or the actors of Ray.
        threads: the threads of torch in each encoder thread.
        batch_seconds: the audio in a batch, in seconds.

    Raises:
        InputError: for values that are not valid, or that do not go together.
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
    encoders: int | None = None
    threads: int | None = None
    batch_seconds: float | None = None

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise InputError(f"format must be one of {', '.join(FORMATS)}, not {self.format!r}")
        if self.compact and self.format != "melcap":
            raise InputError("compact is for .melcap files: use --format melcap with --compact")
        if self.engine not in ENGINES:
            raise InputError(f"engine must be one of {', '.join(ENGINES)}, not {self.engine!r}")
        for name in ("shard_clips", "readers", "encoders", "threads"):
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

    def workers(self, device: str) -> Workers:
        """Return the workers for a device ("cpu" or "cuda"), chosen by the machine unless given."""
        cores = usable_cores()
        if device == "cpu":
            encoders = self.encoders or min(cores, 16)
            threads = self.threads or max(1, cores // encoders)
            readers = self.readers or max(1, cores // 4)
            return Workers(readers, encoders, threads, self.batch_seconds or 0.0)
        return Workers(
            readers=self.readers or cores,
            encoders=self.encoders or 2,
            threads=self.threads or 1,
            batch_seconds=self.batch_seconds or 240.0,
        )
