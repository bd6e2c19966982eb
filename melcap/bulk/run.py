"""`tokenize`: a collection of audio to a token set, on one machine."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

from melcap.bulk.assembler import Assembler, Whole
from melcap.bulk.encoding import Encoded
from melcap.bulk.journal import Finished, Journal
from melcap.bulk.lanes import Lanes
from melcap.bulk.reader import Bad, End
from melcap.bulk.readers import Readers
from melcap.bulk.rows import TokenRow
from melcap.bulk.shards import FORMATS, write_shard
from melcap.bulk.sources import INSTALL, find
from melcap.bulk.windows import Framing
from melcap.codec import Codec
from melcap.container import Header
from melcap.errors import ContainerError, InputError, MelcapError
from melcap.extras import import_extra
from melcap.files import replacing
from melcap.pretrained import weights_hash

ERRORS = "errors.jsonl"
ENGINES = ("local", "ray")
_TICK_SECONDS = 0.5


@dataclass(frozen=True)
class Options:
    """How a collection becomes tokens.

    `format` and `mono` decide what the rows are, and must stay the same for one token set; new
    shards have up to `shard_clips` rows. The others are for speed; None is a choice by the machine:
    readers are processes that decode audio, lanes threads that encode it, each with so many threads
    of torch, in batches of `batch_seconds`. With `engine` "ray" a cluster takes the place of
    readers, and lanes are its actors, which compute on `device` ("cpu" or "cuda"; None is that of
    the codec at hand) with `backend`.
    """

    format: str = "parquet"
    mono: bool = False
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
        if self.engine not in ENGINES:
            raise InputError(f"engine must be one of {', '.join(ENGINES)}, not {self.engine!r}")
        for name in ("shard_clips", "readers", "lanes", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} must be at least 1, not {value}")

    def machine(self, device: str) -> tuple[int, int, int, float]:
        """(readers, lanes, threads, batch_seconds), chosen where they were not given."""
        cores = _cores()
        if device == "cpu":
            lanes = self.lanes or min(cores, 16)
            threads = self.threads or max(1, cores // lanes)
            return self.readers or max(1, cores // 4), lanes, threads, self.batch_seconds or 0.0
        lanes = self.lanes or 2
        return self.readers or cores, lanes, self.threads or 1, self.batch_seconds or 240.0


@dataclass(frozen=True)
class Progress:
    """How a run stands: clips in the plan, done and bad ones, folders and tars that cannot be
    searched; seconds of audio done in this run, channels counted one by one, and the seconds that
    it has taken."""

    clips: int
    done: int
    bad: int
    unlisted: int
    audio_seconds: float
    wall_seconds: float
    busy: float
    """The share of time in which lanes computed."""
    before: int = 0
    """Clips that an earlier run had done."""

    @property
    def speed(self) -> float:
        """Times real time."""
        return self.audio_seconds / max(self.wall_seconds, 1e-9)

    @property
    def eta_seconds(self) -> float | None:
        """Until the end, if the clips to come are like those of this run; None before the first."""
        gone = self.done + self.bad - self.before
        return (self.clips - self.done - self.bad) * self.wall_seconds / gone if gone else None


def tokenize(
    sources: Sequence[str],
    out: Path,
    codec: Codec,
    options: Options = Options(),
    *,
    retry: bool = False,
    progress: Callable[[Progress], None] = lambda _: None,
) -> Progress:
    """Encode every clip of the sources (see `sources.find`) into the token set `out`.

    Stopped at any moment, by whatever, the same call goes on and ends with the rows of an
    undisturbed run. Called with more sources, it does what is new. Clips that cannot be read are
    passed by and listed in `errors.jsonl`; `retry` tries them once more.

    Args:
        progress: called about twice a second, and at the end.

    Raises:
        InputError: for a source that is not there, two clips of one id, or a token set that was
            made with another model, format or mono.
        MelcapError: where the token set cannot be written; what is done stays done.
    """
    weights_hash(codec)  # refuses a codec without a file
    if options.format == "parquet":
        import_extra("pyarrow.parquet", INSTALL)
    settings = {
        "model": codec.model,
        "format": options.format,
        "mono": options.mono,
    }
    with Journal(out, settings) as journal:
        journal.plan(find(sources, str(out)), options.shard_clips)
        if retry:
            journal.retry(options.shard_clips)
        _write_errors(out, journal)
        run = _Run(out, journal, codec, options, progress)
        try:
            run.write_shards()
            if next(journal.waiting(), None):
                run.encode()
        finally:
            journal.commit()
            _write_errors(out, journal)
        return run.progress()


class _Run:
    """One call of `tokenize` at work on what is waiting in the journal."""

    def __init__(
        self,
        out: Path,
        journal: Journal,
        codec: Codec,
        options: Options,
        report: Callable[[Progress], None],
    ) -> None:
        self._out, self._journal, self._codec = out, journal, codec
        self._options, self._report = options, report
        self._counts = journal.counts()
        self._before = self._counts.done + self._counts.bad
        self._seconds = 0.0
        self._began = 0.0
        self._ticked = perf_counter()
        self._busy: Callable[[], float] = lambda: 0.0

    def encode(self) -> None:
        """Encode what waits; on Ray, if that is asked for, and then here what Ray gave up on."""
        framing = Framing.of(self._codec)
        options, codec = self._options, self._codec
        if options.engine == "ray":
            from melcap.bulk.on_ray import RayWorkers

            *_, batch = options.machine(device := options.device or codec.device.type)
            workers = RayWorkers(codec, framing, options, device, batch)
            self._take(workers.encode(self._journal.waiting()))
            if not next(self._journal.waiting(), None):
                return
            if self._counts.done + self._counts.bad == self._before:
                raise MelcapError("Ray gave no result for any clip; its logs and dashboard say why")
        readers, lanes, threads, batch = options.machine(codec.device.type)
        encoder = Lanes(codec, framing, lanes, threads, batch)
        self._busy = lambda: encoder.busy
        with Readers(readers, framing, options.mono) as pool:
            self._take(encoder.encode(pool, self._journal.waiting()))

    def _take(self, results: Generator[Encoded | End | Bad]) -> None:
        """Put down what comes, and write shards as they become ready."""
        self._began = self._began or perf_counter()
        assembler = Assembler()
        with closing(results):
            for result in results:
                clip = assembler.take(result)
                if clip:
                    self._put_down(clip)
                if perf_counter() - self._ticked > _TICK_SECONDS:
                    self._tick()
        self._tick()

    def write_shards(self) -> None:
        """Write the shards of which every clip is done or bad."""
        for shard in self._journal.ready_shards():
            rows = (self._row(clip) for clip in self._journal.finished(shard))
            write_shard(self._out, shard, self._options.format, rows)
            self._journal.written(shard)

    def progress(self) -> Progress:
        counts = self._counts
        wall = perf_counter() - self._began if self._began else 0.0
        return Progress(
            clips=counts.clips,
            done=counts.done,
            bad=counts.bad,
            unlisted=counts.unlisted,
            audio_seconds=self._seconds,
            wall_seconds=wall,
            busy=self._busy(),
            before=self._before,
        )

    def _put_down(self, clip: Whole | Bad) -> None:
        counts = self._counts
        if isinstance(clip, Whole):
            try:
                self._header(clip.end, clip.tokens.size)
            except ContainerError as error:  # beyond what a row can hold
                clip = Bad(clip.end.clip, str(error))
        if isinstance(clip, Bad):
            self._journal.fail(clip.clip, clip.reason)
            self._counts = replace(counts, bad=counts.bad + 1)
            return
        end = clip.end
        data = clip.tokens.astype("<u2").tobytes()
        self._journal.finish(end.clip, end.sample_rate, end.channels, end.samples, data)
        self._counts = replace(counts, done=counts.done + 1)
        self._seconds += end.channels * end.samples / end.sample_rate

    def _tick(self) -> None:
        self._journal.commit()
        self.write_shards()
        self._report(self.progress())
        self._ticked = perf_counter()

    def _row(self, clip: Finished) -> TokenRow:
        header = self._header(clip, clip.tokens.size)
        return TokenRow(clip.entry.id, clip.entry.source, header, clip.tokens)

    def _header(self, clip: Finished | End, tokens: int) -> Header:
        config = self._codec.config
        return Header(
            model=config.name,
            weights=weights_hash(self._codec),
            sample_rate=clip.sample_rate,
            channels=clip.channels,
            samples=clip.samples,
            rows=config.rows,
            columns=tokens // (clip.channels * config.rows),
            bits=config.tokenizer.bits,
        )


def _write_errors(out: Path, journal: Journal) -> None:
    """What is bad, a line each; no file where nothing is."""
    target = out / ERRORS
    lines = [json.dumps(line, ensure_ascii=False) + "\n" for line in journal.bad()]
    if not lines:
        target.unlink(missing_ok=True)
        return
    with replacing(target) as temporary:
        temporary.write_text("".join(lines), encoding="utf-8")


def _cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
