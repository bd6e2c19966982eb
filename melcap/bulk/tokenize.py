"""Tokenize a collection of audio: the function behind `melcap tokenize`."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import chain
from pathlib import Path
from time import perf_counter

from melcap.audio_codec import AudioCodec
from melcap.bulk import INSTALL
from melcap.bulk.encoding.assembler import Assembler, EncodedClip
from melcap.bulk.encoding.encode import EncodedWindow
from melcap.bulk.encoding.threads import EncoderThreads
from melcap.bulk.manifests.entries import Entry, Found
from melcap.bulk.manifests.sources import find
from melcap.bulk.options import Options
from melcap.bulk.reading.messages import Bad, End
from melcap.bulk.reading.pool import ReaderPool
from melcap.bulk.reading.windows import Framing
from melcap.bulk.run_state import RunState
from melcap.bulk.token_sets.journal import Finished, Journal
from melcap.bulk.token_sets.rows import TokenRow
from melcap.bulk.token_sets.shards import write_shard
from melcap.errors import ContainerError, MelcapError
from melcap.extras import import_extra
from melcap.io.container import Header, row_tables
from melcap.io.files import write_text
from melcap.pretrained import require_file

__all__ = ["ERRORS", "Options", "RunState", "tokenize"]

ERRORS = "errors.jsonl"
"""The file of a token set that lists what could not be read or has changed."""
_TICK_SECONDS = 0.5
_DEFAULTS = Options()


def tokenize(
    sources: Sequence[str],
    out: Path,
    codec: AudioCodec,
    options: Options = _DEFAULTS,
    *,
    retry: bool = False,
    progress: Callable[[RunState], None] = lambda _: None,
) -> RunState:
    """Encode every clip of a collection into a token set.

    If a run is stopped or killed at any moment, the same call continues it and ends with the rows
    of an undisturbed run. A call with more sources encodes what is new. Clips that cannot be read
    are skipped and listed in `errors.jsonl`.

    Args:
        sources: files, folders, globs, tars, manifests and URLs; see
            `melcap.bulk.manifests.sources.find`.
        out: the folder of the token set.
        codec: the codec. Its weights must be in a file.
        options: the format of the token set, and the workers.
        retry: whether to try clips again that were bad in an earlier run.
        progress: a function that is called about twice a second, and at the end.

    Returns:
        The state at the end of the run.

    Raises:
        InputError: for a source that does not exist or holds no clip, and a token set that was made
            with another tokenizer, format, compact, mono or keep, or has files that are not in its
            journal.
        MelcapError: if the token set cannot be written. What is done stays done.

    Example:
        >>> from pathlib import Path
        >>> import melcap
        >>> end = tokenize(["recordings/"], Path("tokens"), melcap.load())  # doctest: +SKIP
        >>> end.clips, end.done, end.bad  # doctest: +SKIP
        (1200, 1199, 1)
    """
    require_file(codec)
    if options.format == "parquet":
        import_extra("pyarrow.parquet", INSTALL)
    if options.compact:
        row_tables.find(codec.tokenizer_id)
    settings = {
        "tokenizer_id": codec.tokenizer_id,
        "format": options.format,
        "compact": options.compact,
        "mono": options.mono,
        "keep": options.keep,
    }
    found = find(sources, str(out), options.keep)
    first = _up_to_a_clip(found)  # nothing is made before a clip was found
    with Journal(out, settings) as journal:
        passed = journal.plan(chain(first, found), options.shard_clips)
        if retry:
            journal.retry(options.shard_clips)
        _write_errors(out, journal)
        run = _Run(out, journal, codec, options, progress, passed)
        try:
            run.write_shards()
            if next(journal.waiting(), None):
                run.encode()
        finally:
            journal.commit()
            _write_errors(out, journal)
        return run.state()


def _up_to_a_clip(found: Iterator[Found]) -> list[Found]:
    """Return the results of a search up to the first clip, or all of them if it has none."""
    results = []
    for each in found:
        results.append(each)
        if isinstance(each, Entry):
            break
    return results


class _Run:
    """One call of `tokenize`, which works on the clips that wait in the journal."""

    def __init__(
        self,
        out: Path,
        journal: Journal,
        codec: AudioCodec,
        options: Options,
        report: Callable[[RunState], None],
        passed: Mapping[str, int],
    ) -> None:
        self._out, self._journal, self._codec = out, journal, codec
        self._tokenizer_id = codec.tokenizer_id
        self._options, self._report = options, report
        self._passed = passed
        self._counts = journal.counts()
        self._before = self._counts.done + self._counts.bad
        self._seconds = 0.0
        self._began = 0.0
        self._ticked = perf_counter()
        self._busy: Callable[[], float] = lambda: 0.0

    def encode(self) -> None:
        """Encode the clips that wait: with Ray, if asked for, and then here those it gave up on."""
        framing = Framing.of(self._codec)
        options, codec = self._options, self._codec
        if options.engine == "ray":
            from melcap.bulk.ray_engine import RayEncoder

            device = (options.device or codec.device.type).partition(":")[0]  # Ray chooses the GPU
            seconds = options.workers(device).batch_seconds
            cluster = RayEncoder(codec, framing, options, device, seconds)
            self._take(cluster.encode(self._journal.waiting()))
            if not next(self._journal.waiting(), None):
                return
            if self._counts.done + self._counts.bad == self._before:
                raise MelcapError("Ray gave no result for any clip; see its logs and dashboard")
        workers = options.workers(codec.device.type)
        encoder = EncoderThreads(
            codec, framing, workers.encoders, workers.threads, workers.batch_seconds
        )
        self._busy = lambda: encoder.busy
        with ReaderPool(workers.readers, framing, options.mono) as pool:
            self._take(encoder.encode(pool, self._journal.waiting()))

    def _take(self, results: Generator[EncodedWindow | End | Bad]) -> None:
        """Record results in the journal as they come, and write shards as they become ready."""
        self._began = self._began or perf_counter()
        assembler = Assembler()
        with closing(results):
            for result in results:
                clip = assembler.take(result)
                if clip:
                    self._record(clip)
                if perf_counter() - self._ticked > _TICK_SECONDS:
                    self._tick()
        self._tick()

    def write_shards(self) -> None:
        """Write the shards of which every clip is done or bad."""
        for shard in self._journal.ready_shards():
            rows = (self._row(clip) for clip in self._journal.finished(shard))
            files = write_shard(self._out, shard, self._options.format, rows)
            self._journal.written(shard, files)

    def state(self) -> RunState:
        counts = self._counts
        wall = perf_counter() - self._began if self._began else 0.0
        return RunState(
            clips=counts.clips,
            done=counts.done,
            bad=counts.bad,
            unlisted=counts.unlisted,
            changed=counts.changed,
            audio_seconds=self._seconds,
            wall_seconds=wall,
            busy=self._busy(),
            before=self._before,
            remade=self._journal.remade,
            passed=self._passed,
        )

    def _record(self, clip: EncodedClip | Bad) -> None:
        counts = self._counts
        if isinstance(clip, EncodedClip):
            try:
                self._header(clip.end, clip.tokens.size)
            except ContainerError as error:  # more than a row can hold
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
        self._report(self.state())
        self._ticked = perf_counter()

    def _row(self, clip: Finished) -> TokenRow:
        header = self._header(clip, clip.tokens.size)
        # A clip that is in no manifest has no kept values.
        values = clip.entry.kept or (None,) * len(self._options.keep)
        kept = dict(zip(self._options.keep, values, strict=True))
        return TokenRow(clip.entry.id, clip.entry.source, header, clip.tokens, kept)

    def _header(self, clip: Finished | End, tokens: int) -> Header:
        config = self._codec.config
        return Header(
            model=self._codec.model,
            tokenizer_id=self._tokenizer_id,
            sample_rate=clip.sample_rate,
            channels=clip.channels,
            samples=clip.samples,
            rows=config.rows,
            columns=tokens // (clip.channels * config.rows),
            bits=config.tokenizer.bits,
            compact=self._options.compact,
        )


def _write_errors(out: Path, journal: Journal) -> None:
    """Write a line for each problem; without any, there is no file."""
    target = out / ERRORS
    lines = [json.dumps(line, ensure_ascii=False) + "\n" for line in journal.bad()]
    if not lines:
        target.unlink(missing_ok=True)
        return
    write_text(target, "".join(lines))
