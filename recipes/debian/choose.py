"""The choice of clips, so that each speaker, band and package has its share and no more."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

from recipes.debian.clips import Clip
from recipes.debian.rules import MINUTES
from recipes.debian.sources import Dropped

_STEPS = 60

BEYOND = "more of this group than is wanted"
"""The reason for leaving out good clips."""


def choose(
    clips: Sequence[Clip], hours: float | None = None, everything: bool = False
) -> tuple[list[Clip], list[Dropped]]:
    """Return the clips that are taken, and the audio that is not.

    From each group (package, class and speaker) as many minutes are taken as the list says. Files
    take turns, so that a share comes from many files and not from a few long ones.

    Args:
        clips: All good clips.
        hours: The length of the set; all shares grow or shrink together to reach it, as far as
            there is audio. None keeps the shares of the list.
        everything: Whether to take all clips.
    """
    groups: dict[tuple[str, str, str], list[Clip]] = {}
    for clip in clips:
        audio = clip.audio
        groups.setdefault((audio.package, audio.label, audio.speaker), []).append(clip)
    queues = [sorted(group, key=_turn) for _, group in sorted(groups.items())]
    if everything:
        scale = math.inf
    elif hours is None:
        scale = 1.0
    else:
        scale = _scale_for(queues, hours * 3600)
    taken, dropped = [], []
    for queue in queues:
        count = _count(queue, scale, timed=hours is not None)
        taken += queue[:count]
        for clip in queue[count:]:
            for part in clip.parts:
                seconds = sum(stop - start for start, stop in part.spans) / part.facts.rate
                dropped.append(Dropped(part.audio.package, part.audio.origin, seconds, BEYOND))
    return taken, dropped


def _turn(clip: Clip) -> tuple[int, str]:
    name = f"{clip.audio.package}/{clip.audio.origin}"
    return clip.rank, hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()


def _count(queue: Sequence[Clip], scale: float, timed: bool) -> int:
    """Return the number of clips of a queue that its share has room for.

    It is at least one where no hours are asked for, because some groups have only a few words.
    """
    minutes = queue[0].audio.minutes
    if timed and math.isinf(minutes):
        minutes = MINUTES
    room = 60 * minutes * scale
    count = 0
    for clip in queue:
        room -= clip.seconds
        if room < 0 and (count or timed):
            break
        count += 1
    return count


def _scale_for(queues: Sequence[Sequence[Clip]], seconds: float) -> float:
    """Return the largest scale of the shares with which at most `seconds` are taken."""

    def total(scale: float) -> float:
        counts = (_count(queue, scale, timed=True) for queue in queues)
        chosen = zip(queues, counts, strict=True)
        return sum(clip.seconds for queue, count in chosen for clip in queue[:count])

    low, high = 0.0, 1.0
    while total(high) <= seconds and total(high) < total(math.inf):
        low, high = high, 2 * high
    if total(high) <= seconds:
        return high
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if total(middle) <= seconds else (low, middle)
    return low
