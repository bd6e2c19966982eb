"""Count a recogniser's errors on speech that codecs have decoded."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from melcap.evaluation.clips import choose_clips
from melcap.evaluation.measures.metrics import SPEECH
from melcap.evaluation.probes.jobs import compute
from melcap.evaluation.probes.labels import Labelled
from melcap.evaluation.probes.recogniser import WordJob, errors, normalise, unknown
from melcap.evaluation.probes.scores import interval, rates
from melcap.evaluation.probes.settings import Settings
from melcap.evaluation.table import Row
from melcap.evaluation.workers import Begin

ORIGINAL = "original"


def speech_of(
    sides: Mapping[str, Sequence[Labelled]], per_package: int
) -> dict[tuple[str, str], list[Labelled]]:
    """Choose the clips for each search of the recogniser.

    English goes through the search for sentences or that for a list. Speech of VALID, in any
    language, also goes through the search for phones.

    Args:
        sides: the clips of "TRAIN", "VALID" and "SPEECH".
        per_package: the most clips of each package.

    Returns:
        The clips of each (search, side).
    """
    found: dict[tuple[str, str], list[Labelled]] = defaultdict(list)
    for side, items in sides.items():
        for item in items:
            if item.english:
                found["list" if item.listed else "sentences", side].append(item)
            if side == "VALID" and item.kind == SPEECH:
                found["phones", side].append(item)
    return {key: _choose(items, per_package) for key, items in found.items()}


def count_errors(
    clips: dict[tuple[str, str], list[Labelled]], settings: Settings, folder: Path, begin: Begin
) -> tuple[list[Row], list[str]]:
    """Recognise clips after each codec, and count the errors.

    A clip that fails with one codec is left out for all of them.

    Args:
        clips: the clips of each (search, side).
        settings: the codecs, and the number of processes.
        folder: where transcripts are kept.
        begin: shows progress.

    Returns:
        A line for each search, side and codec, and a sentence for each clip that failed.
    """
    names = list(dict.fromkeys([ORIGINAL, *settings.codecs]))
    words = [
        item.text for (search, _), items in clips.items() if search == "list" for item in items
    ]
    vocabulary = tuple(sorted(set(normalise(" ".join(words)).split())))
    jobs = {
        (*key, item.clip, name): WordJob(
            name,
            item.clip,
            search=key[0],
            vocabulary=vocabulary if key[0] == "list" else (),
            folder=folder / "words",
            find_peer=settings.find_peer,
        )
        for key, items in clips.items()
        for item in items
        for name in names
    }
    failed = compute(list(jobs.values()), settings.processes, begin("recogniser", len(jobs)))
    failures = [
        f"{job.codec}, {job.clip.name}: {failed[job.path]}"
        for job in jobs.values()
        if job.path in failed
    ]
    broken = {job.clip for job in jobs.values() if job.path in failed}
    lines = []
    for key, items in clips.items():
        kept = [item for item in items if item.clip not in broken]
        found = {name: [jobs[(*key, item.clip, name)].load() for item in kept] for name in names}
        lines += [_line(*key, name, kept, found) for name in names if kept]
    return lines, failures


def _choose(items: Sequence[Labelled], per_package: int) -> list[Labelled]:
    by_package = {replace(item.clip, label=item.package): item for item in items}
    return [by_package[clip] for clip in choose_clips(by_package, per_package)]


def _line(
    search: str, side: str, codec: str, items: Sequence[Labelled], found: dict[str, list[Row]]
) -> Row:
    decoded, original = ([one["transcript"] for one in found[name]] for name in (codec, ORIGINAL))
    seconds = sum(one["seconds"] for one in found[codec])
    texts = [normalise(item.text) if search != "phones" else "" for item in items]
    return {
        "search": search,
        "side": side,
        "codec": codec,
        "packages": sorted({item.package for item in items}),
        "clips": len(items),
        "seconds": round(seconds, 1),
        "kbps": round(sum(one["bytes"] for one in found[codec]) * 8 / seconds / 1000, 2),
        "unknown_words": unknown(sorted(set(" ".join(texts).split()))),
        **_rate("error_rate", texts, decoded),
        **_rate("disagreement", original if codec != ORIGINAL else [], decoded),
    }


def _rate(name: str, references: Sequence[str], transcripts: Sequence[str]) -> Row:
    """Return the errors over the words of the references that there are, and their number."""
    pairs = [(r, t) for r, t in zip(references, transcripts, strict=False) if r]
    if not pairs:
        return {name: None, f"{name}_words": 0}
    wrong, words = zip(*(errors(*pair) for pair in pairs), strict=True)
    return {name: interval(rates(wrong, words)), f"{name}_words": sum(words)}
