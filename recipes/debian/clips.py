"""Which files are good, and how they are cut into clips: decisions about facts, no audio."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from melcap.io.resample import resampled_length
from melcap.training.data import SAMPLE_RATE
from recipes.debian.probe import Facts, Span
from recipes.debian.sources import Audio, Dropped

LONGEST = 30.0
"""Seconds of the longest clip."""
GAP = SAMPLE_RATE // 8
"""Samples of silence between joined words."""
_SHORTEST_CLIP, _SHORTEST_WORD = 0.5, 1 / 12
# From this length on a file makes clips of its own; shorter ones are joined, up to _JOINED.
_LONG = {"music": 6.0, "speech": 8.0, "sound": 8.0}
_JOINED = 20.0
# A file of a lower rate has no treble to learn; of telephone voices there are more than enough.
_LOWEST_RATE = {"music": 32_000, "speech": 16_000, "sound": 32_000}
_NARROWEST = {"music": 0, "speech": 4_000, "sound": 0}
_SILENT_PEAK, _MOST_CLIPPED = 2e-3, 0.01


@dataclass(frozen=True)
class Part:
    """What a clip takes of one file: `spans` in samples of the file, in order."""

    audio: Audio
    facts: Facts
    spans: tuple[Span, ...]

    @property
    def samples(self) -> int:
        """How many samples it has at 44.1 kHz."""
        taken = sum(stop - start for start, stop in self.spans)
        return resampled_length(taken, self.facts.rate, SAMPLE_RATE)


@dataclass(frozen=True)
class Clip:
    """Parts that follow each other after 1/8 s of silence; all of one class, speaker and licence.

    `rank` counts the clips of one file, in an order that has nothing to do with time.
    """

    parts: tuple[Part, ...]
    rank: int = 0

    @property
    def audio(self) -> Audio:
        """The first file, which stands for what all of them share."""
        return self.parts[0].audio

    @property
    def samples(self) -> int:
        return sum(part.samples for part in self.parts) + GAP * (len(self.parts) - 1)

    @property
    def seconds(self) -> float:
        return self.samples / SAMPLE_RATE


def fault(label: str, facts: Facts, min_bandwidth: int | None = None) -> str:
    """Why a file of a class is left out, in a few words; "" for one that is good.

    `min_bandwidth` in Hz takes the place of what each class asks for itself.
    """
    narrowest = _NARROWEST[label] if min_bandwidth is None else min_bandwidth
    if facts.error:
        return f"cannot be decoded: {facts.error}"
    if facts.peak < _SILENT_PEAK or not facts.spans:
        return "silent"
    if sum(stop - start for start, stop in facts.spans) < _SHORTEST_WORD * facts.rate:
        return "too short"
    if facts.rate < _LOWEST_RATE[label]:
        return f"narrow band: {facts.rate} Hz"
    if facts.bandwidth < narrowest:
        return "narrow band: it ends too low"
    if facts.clipped > _MOST_CLIPPED:
        return "clipped"
    return ""


def sift(
    files: Sequence[tuple[Audio, Facts]], min_bandwidth: int | None = None
) -> tuple[list[tuple[Audio, Facts]], list[Dropped]]:
    """The files without fault, each sound once, and what was left out.

    Of two files with the same samples the one in valid stays, or the first by package and name:
    nothing that is measured on is learnt from.
    """
    kept, dropped, heard = [], [], set()
    order = sorted(files, key=lambda file: (file[0].split != "valid", _key(file[0])))
    for audio, facts in order:
        reason = fault(audio.label, facts, min_bandwidth)
        if not reason and facts.digest in heard:
            reason = "the same samples as another file"
        if reason:
            dropped.append(Dropped(audio.package, audio.origin, facts.seconds, reason))
            continue
        heard.add(facts.digest)
        kept.append((audio, facts))
    return kept, dropped


def cut(files: Sequence[tuple[Audio, Facts]]) -> tuple[list[Clip], list[Dropped]]:
    """Cut files into clips of at most 30 s, and name what is left out.

    What sounds of a long file is cut into equal clips. Short files are joined, up to 20 s, with
    others of the same split, package, class, speaker and licence, in an order that is drawn from
    their names. Each sample is in one clip or in what is left out.
    """
    clips: list[Clip] = []
    dropped: list[Dropped] = []
    groups: dict[tuple[str, str, str, str, str], list[Part]] = {}
    for audio, facts in files:
        silent = facts.samples - sum(stop - start for start, stop in facts.spans)
        if silent:
            seconds = silent / facts.rate
            dropped.append(Dropped(audio.package, audio.origin, seconds, "silence"))
        whole = Part(audio, facts, facts.spans)
        if whole.samples < _LONG[audio.label] * SAMPLE_RATE:
            key = (audio.split, audio.package, audio.label, audio.speaker, audio.licence)
            groups.setdefault(key, []).append(whole)
        else:
            clips.extend(_pieces(whole))
    for key in sorted(groups):
        for clip in _joined(groups[key]):
            if clip.seconds >= _SHORTEST_CLIP:
                clips.append(clip)
                continue
            for part in clip.parts:
                seconds = part.samples / SAMPLE_RATE
                dropped.append(
                    Dropped(part.audio.package, part.audio.origin, seconds, "too short, and alone")
                )
    return clips, dropped


def _pieces(whole: Part) -> Iterator[Clip]:
    """A long file's clips: what sounds, in equal parts that are as long as may be."""
    rate, taken = whole.facts.rate, sum(stop - start for start, stop in whole.spans)
    count = math.ceil(taken / (LONGEST * rate))
    ends = [taken * number // count for number in range(1, count + 1)]
    drawn = sorted(range(count), key=lambda number: _draw(f"{whole.audio.origin} {number}"))
    spans = list(whole.spans)
    position = 0
    for number, end in enumerate(ends):
        part: list[Span] = []
        while position < end:
            start, stop = spans.pop(0)
            middle = min(stop, start + end - position)
            part.append((start, middle))
            position += middle - start
            if middle < stop:
                spans.insert(0, (middle, stop))
        yield Clip((Part(whole.audio, whole.facts, tuple(part)),), drawn.index(number))


def _joined(words: Sequence[Part]) -> Iterator[Clip]:
    held: list[Part] = []
    for word in sorted(words, key=lambda word: _draw("/".join(_key(word.audio)))):
        if held and Clip((*held, word)).seconds > _JOINED:
            yield Clip(tuple(held))
            held = []
        held.append(word)
    if held:
        yield Clip(tuple(held))


def _key(audio: Audio) -> tuple[str, str]:
    return audio.package, audio.origin


def _draw(name: str) -> str:
    """An order that is as good as random, and always the same."""
    return hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()
