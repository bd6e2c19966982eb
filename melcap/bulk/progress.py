"""The state of a run of `tokenize`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Progress:
    """The state of a run: clips in the plan, done and bad ones, folders and tars that cannot be
    searched, clips whose source has changed since they were done; seconds of audio done in this
    run, channels counted one by one, and the seconds that it has taken."""

    clips: int
    done: int
    bad: int
    unlisted: int
    changed: int
    audio_seconds: float
    wall_seconds: float
    busy: float
    """The share of time in which lanes computed."""
    before: int = 0
    """Clips that an earlier run had done."""
    remade: int = 0
    """Files of the token set that were lost, cut or altered, and are made again."""
    passed: Mapping[str, int] = field(default_factory=dict)
    """Things that the search met and did not take, by kind: {".txt": 12}."""

    @property
    def speed(self) -> float:
        """Times real time."""
        return self.audio_seconds / max(self.wall_seconds, 1e-9)

    @property
    def eta_seconds(self) -> float | None:
        """Until the end, if the clips to come are like those of this run; None before the first."""
        gone = self.done + self.bad - self.before
        return (self.clips - self.done - self.bad) * self.wall_seconds / gone if gone else None
