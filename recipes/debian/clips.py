"""The choice of good files and how they are cut into clips, decided by facts without decoding."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from melcap.io.resample import resampled_length
from melcap.training.audio_cache import SAMPLE_RATE
from recipes.debian.probe import Facts, Span
from recipes.debian.sources import Audio, Dropped

LONGEST = 30.0
"""The length of the longest clip in seconds."""
GAP = SAMPLE_RATE // 8
"""The samples of silence between joined words."""
_SHORTEST_CLIP, _SHORTEST_WORD = 0.5, 1 / 12
# Seconds from which on a file makes clips of its own; shorter files are joined, up to _JOINED.
_LONG = {"music": 6.0, "speech": 8.0, "sound": 8.0}
_JOINED = 20.0
# Files of a lower rate have no treble to train on, and there are enough telephone voices.
_LOWEST_RATE = {"music": 32_000, "speech": 16_000, "sound": 32_000}
_NARROWEST = {"music": 0, "speech": 4_000, "sound": 0}
_SILENT_PEAK, _MOST_CLIPPED = 2e-3, 0.01


@dataclass(frozen=True)
class Part:
    """The part of a clip that comes from one file; `spans` are in samples of the file, in order."""

    audio: Audio
    facts: Facts
    spans: tuple[Span, ...]

    @property
    def samples(self) -> int:
        """The number of samples at 44.1 kHz."""
        taken = sum(stop - start for start, stop in self.spans)
        return resampled_length(taken, self.facts.rate, SAMPLE_RATE)


@dataclass(frozen=True)
class Clip:
    """A clip of parts with 1/8 s of silence between them; all have one class, speaker and licence.

    `rank` numbers the clips of one file in a random order that is always the same.
    """

    parts: tuple[Part, ...]
    rank: int = 0

    @property
    def audio(self) -> Audio:
        """The first file; what all files of the clip share is read from it."""
        return self.parts[0].audio

    @property
    def samples(self) -> int:
        """The number of samples at 44.1 kHz."""
        return sum(part.samples for part in self.parts) + GAP * (len(self.parts) - 1)

    @property
    def seconds(self) -> float:
        """The length in seconds."""
        return self.samples / SAMPLE_RATE


def fault(label: str, facts: Facts, min_bandwidth: int | None = None) -> str:
    """Return why a file of a class is left out, in a few words, or "" for a good file.

    `min_bandwidth` in Hz replaces the bandwidth that each class requires.
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
    """Return the files without fault, each with other samples, and what was left out.

    Of two files with the same samples, the one in valid stays, so that nothing that is evaluated
    has been trained on. Otherwise the first by package and name stays.
    """
    kept, dropped, seen = [], [], set()
    order = sorted(files, key=lambda file: (file[0].split != "valid", _key(file[0])))
    for audio, facts in order:
        reason = fault(audio.label, facts, min_bandwidth)
        if not reason and facts.digest in seen:
            reason = "the same samples as another file"
        if reason:
            dropped.append(Dropped(audio.package, audio.origin, facts.seconds, reason))
            continue
        seen.add(facts.digest)
        kept.append((audio, facts))
    return kept, dropped


def cut(files: Sequence[tuple[Audio, Facts]]) -> tuple[list[Clip], list[Dropped]]:
    """Cut files into clips of at most 30 s, and return them and what is left out.

    A long file without its silences is cut into equal clips. Short files are joined, up to 20 s,
    with others of the same split, package, class, speaker and licence, in a random order that
    depends on their names. Each sample is in one clip or in what is left out.
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
    """Yield the clips of a long file: the spans that sound, in equal parts as long as possible."""
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
    """Yield clips of short files that are joined."""
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
    """Return a key that sorts names in a random order that is always the same."""
    return hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()
