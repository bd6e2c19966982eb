"""Measure codecs on clips, and keep each result in a file the moment it is there.

Each result is a line of OUT/scores.jsonl, so a run that was stopped resumes where it was.
`melcap.evaluation.report` makes tables and pictures of the lines. Measures of speech, and codecs
made for speech, are for clips of the class speech alone.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import torch

from melcap.errors import InputError, MelcapError
from melcap.evaluation import stability
from melcap.evaluation.clips import RATE, Clip
from melcap.evaluation.measures import metrics
from melcap.evaluation.measures.codebook import count_tokens, pack_counts
from melcap.evaluation.measures.predictor import find, fingerprint, predict, tokenizer_of
from melcap.evaluation.peers.base import Peer
from melcap.evaluation.peers.decoded import DecodedFile
from melcap.evaluation.peers.registry import FindPeer, peer
from melcap.evaluation.table import Row
from melcap.evaluation.workers import outcomes
from melcap.provenance import installed_version

KEY = (
    "codec",
    "identity",
    "source",
    "clip",
    "class",
    "cut",
    "sample_rate",
    "measures",
    "predictor",
    "token_changes",
)
"""The fields of a result that tell it from other results."""


@dataclass(frozen=True)
class ScoreJob:
    """A codec to measure on the first `seconds` of a clip.

    Attributes:
        codec: the codec's name.
        clip: the clip.
        seconds: the most that is used of the clip.
        predictor: a predictor's file, for this codec's tokenizer or another one; see
            `predictor.find`.
        find_peer: finds the codec by its name.
        sample_rate: the rate in Hz at which the clip is read, coded and compared.
        decoded: the file with what the codec made of the clip, for one that somebody else ran.
    """

    codec: str
    clip: Clip
    seconds: float
    predictor: Path | None = None
    find_peer: FindPeer = peer
    sample_rate: int = RATE
    decoded: Path | None = None

    @property
    def peer(self) -> Peer:
        """Return the codec."""
        if self.decoded is not None:
            return DecodedFile(self.codec, self.decoded, self.clip, self.seconds)
        return self.find_peer(self.codec)

    def key(self) -> Row:
        """Return all that the result depends on, the fields of `KEY`."""
        versions = (f"{package} {installed_version(package)}" for package in metrics.PACKAGES)
        return {
            "codec": self.codec,
            "identity": self.peer.identity,
            "source": self.clip.source.name,
            "clip": self.clip.name,
            "class": self.clip.kind,
            "cut": self.seconds,
            "sample_rate": self.sample_rate,
            "measures": ", ".join((str(metrics.DEFINITIONS), *versions)),
            "predictor": fingerprint(self._predictor()),
            "token_changes": None if self.peer.codebook is None else stability.DEFINITIONS,
        }

    def run(self) -> Row:
        """Return a line of scores.jsonl; None is a measure that is not defined for the clip."""
        row, codec, rate = self.key(), self.peer, self.sample_rate
        wave = self.clip.read(self.seconds, rate)
        with _one_thread():
            start = time.perf_counter()
            coded = codec.encode(wave, rate)
            between = time.perf_counter()
            decoded = codec.decode(coded)
            end = time.perf_counter()
            changes = stability.stability(codec, wave, decoded, rate, self.clip.name)
        row |= {"seconds": len(wave) / rate, "bytes": None if codec.from_files else coded.size}
        row |= coded.facts
        if not (codec.bound or codec.from_files):
            row |= {"encode_seconds": between - start, "decode_seconds": end - between}
        if codec.codebook_size and coded.tokens is not None:
            row["codes"] = pack_counts(count_tokens(coded.tokens, codec.codebook_size))
        row |= changes
        file = self._predictor()
        if file is not None and coded.tokens is not None:
            row |= predict(file, coded.tokens, row["seconds"])
        speech = self.clip.kind == metrics.SPEECH
        for name, value in metrics.measure(wave, decoded, rate, speech=speech).items():
            row[name] = None if math.isnan(value) else value
        return row

    def _predictor(self) -> Path | None:
        return None if self.decoded else find(self.peer.tokenizer_id, self.predictor)


def jobs_for(
    names: Sequence[str],
    clips: Sequence[Clip],
    seconds: float,
    predictor: Path | None = None,
    find_peer: FindPeer = peer,
    sample_rate: int = RATE,
    decoded: Mapping[str, Mapping[Clip, Path]] = MappingProxyType({}),
) -> list[ScoreJob]:
    """Return a job for each codec and each clip that the codec is made for.

    Args:
        names: the codecs.
        clips: the clips.
        seconds: the most that is used of each clip.
        predictor: a predictor's file, for those of the codecs that have its tokenizer.
        find_peer: finds a codec by its name.
        sample_rate: the rate in Hz at which clips are read, coded and compared.
        decoded: the codecs that somebody else ran, each with its file for every clip.

    Raises:
        InputError: for no codec, an unknown codec, a codec for speech where no clip is of that
            class, and a predictor for the tokens of none of the codecs.
        MelcapError: for a codec that is not installed.
    """
    if not (names or decoded):
        raise InputError("no codec to measure: name at least one")
    kinds = {clip.kind for clip in clips}
    for name in names:
        if find_peer(name).speech_only and metrics.SPEECH not in kinds:
            raise InputError(
                f"{name} is for speech, and no clip here is of the class {metrics.SPEECH}: "
                f"there are {', '.join(sorted(kinds))}"
            )
    tokenizers = {find_peer(name).tokenizer_id for name in names}
    if predictor is not None and tokenizer_of(predictor) not in tokenizers:
        raise InputError(f"{predictor} is for the tokens of none of these codecs")
    jobs = []
    for clip in clips:
        for name in names:
            if clip.kind == metrics.SPEECH or not find_peer(name).speech_only:
                jobs.append(ScoreJob(name, clip, seconds, predictor, find_peer, sample_rate))
        for name, files in decoded.items():
            job = ScoreJob(name, clip, seconds, sample_rate=sample_rate, decoded=files[clip])
            jobs.append(job)
    return jobs


def compute(
    jobs: Sequence[ScoreJob],
    path: Path,
    processes: int,
    advance: Callable[[], object] = lambda: None,
) -> tuple[list[Row], list[str]]:
    """Run the jobs that have no line in a file yet, and add their lines to it.

    Args:
        jobs: all the jobs.
        path: the file, scores.jsonl.
        processes: the number of worker processes; 1 runs the jobs in this process.
        advance: is called once for each job, whether it is done now or was done before.

    Returns:
        The lines of all jobs, in the order of the jobs, and a sentence for each job that failed.

    Raises:
        MelcapError: for a file that holds something else.
    """
    done = {_key(row): row for row in _read_rows(path)}
    wanted = {_key(job.key()): job for job in jobs}
    failures = []
    for _ in wanted.keys() & done.keys():
        advance()
    todo = [job for key, job in wanted.items() if key not in done]
    with path.open("a", encoding="utf-8") as file:
        for job, result in outcomes(ScoreJob.run, todo, processes):
            if isinstance(result, Exception):
                failures.append(f"{job.codec}, {job.clip.name}: {result}")
            else:
                done[_key(result)] = result
                file.write(json.dumps(result) + "\n")
                file.flush()
            advance()
    return [done[key] for key in wanted if key in done], failures


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _read_rows(path: Path) -> list[Row]:
    """Read the complete lines of a file, and cut off a line that a stopped run left unfinished."""
    if not path.exists():
        return []
    data = path.read_bytes()
    complete = data[: data.rfind(b"\n") + 1]
    if len(complete) < len(data):
        with path.open("r+b") as file:
            file.truncate(len(complete))
    try:
        return [json.loads(line) for line in complete.splitlines()]
    except ValueError as error:
        raise MelcapError(f"{path} is not a file of scores ({error}); move it away") from error


def _key(row: Row) -> str:
    return json.dumps([row.get(field) for field in KEY])
