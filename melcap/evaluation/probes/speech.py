"""Which speech the recogniser hears, through which codecs, and how often it is wrong."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from melcap.evaluation.clips import choose_clips
from melcap.evaluation.probes.jobs import compute
from melcap.evaluation.probes.labels import SPEECH, Labelled
from melcap.evaluation.probes.scores import interval, rates
from melcap.evaluation.probes.tasks import Begin, Row
from melcap.evaluation.probes.words import WordJob, errors, normalise, unknown

ORIGINAL = "original"


def material(
    sides: Mapping[str, Sequence[Labelled]], per_package: int
) -> dict[tuple[str, str], list[Labelled]]:
    """The clips for each (search, side), at most `per_package` of each package.

    English goes through the search for sentences, or that for a list; speech of VALID, in whatever
    language, through that for phones as well.
    """
    found: dict[tuple[str, str], list[Labelled]] = defaultdict(list)
    for side, items in sides.items():
        for item in items:
            if item.english:
                found["list" if item.listed else "sentences", side].append(item)
            if side == "VALID" and item.kind == SPEECH:
                found["phones", side].append(item)
    return {key: _choose(items, per_package) for key, items in found.items()}


def hear(
    clips: dict[tuple[str, str], list[Labelled]],
    codecs: Sequence[str],
    folder: Path,
    *,
    processes: int,
    begin: Begin,
) -> tuple[list[Row], list[str]]:
    """A line for each search, side and codec, and a sentence for each clip that failed.

    A clip that one codec fails on counts for none.
    """
    names = list(dict.fromkeys([ORIGINAL, *codecs]))
    words = [
        item.text for (search, _), items in clips.items() if search == "list" for item in items
    ]
    vocabulary = tuple(sorted(set(normalise(" ".join(words)).split())))
    jobs = {
        (*key, item.clip, name): WordJob(
            name, item.clip, key[0], vocabulary if key[0] == "list" else (), folder / "words"
        )
        for key, items in clips.items()
        for item in items
        for name in names
    }
    failed = compute(list(jobs.values()), processes, begin("recogniser", len(jobs)))
    failures = [
        f"{job.codec}, {job.clip.name}: {failed[job.path]}"
        for job in jobs.values()
        if job.path in failed
    ]
    broken = {job.clip for job in jobs.values() if job.path in failed}
    lines = []
    for key, items in clips.items():
        kept = [item for item in items if item.clip not in broken]
        heard = {name: [jobs[(*key, item.clip, name)].load() for item in kept] for name in names}
        lines += [_line(*key, name, kept, heard) for name in names if kept]
    return lines, failures


def _choose(items: Sequence[Labelled], per_package: int) -> list[Labelled]:
    renamed = {replace(item.clip, label=item.package): item for item in items}
    return [renamed[clip] for clip in choose_clips(renamed, per_package)]


def _line(
    search: str, side: str, codec: str, items: Sequence[Labelled], heard: dict[str, list[Row]]
) -> Row:
    here, original = ([found["heard"] for found in heard[name]] for name in (codec, ORIGINAL))
    seconds = sum(found["seconds"] for found in heard[codec])
    texts = [normalise(item.text) if search != "phones" else "" for item in items]
    line: dict[str, Any] = {
        "search": search,
        "side": side,
        "codec": codec,
        "packages": sorted({item.package for item in items}),
        "clips": len(items),
        "seconds": round(seconds, 1),
        "kbps": round(sum(found["bytes"] for found in heard[codec]) * 8 / seconds / 1000, 2),
    }
    line["unknown_words"] = unknown(sorted(set(" ".join(texts).split())))
    line |= _rate("error_rate", texts, here)
    line |= _rate("disagreement", original if codec != ORIGINAL else [], here)
    return line


def _rate(name: str, references: Sequence[str], heard: Sequence[str]) -> Row:
    """Errors over the words of the references, where there are any, with their number."""
    pairs = [(r, h) for r, h in zip(references, heard, strict=False) if r]
    if not pairs:
        return {name: None, f"{name}_words": 0}
    wrong, words = zip(*(errors(*pair) for pair in pairs), strict=True)
    return {name: interval(rates(wrong, words)), f"{name}_words": sum(words)}
