"""The state of a run of `tokenize`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class RunState:
    """The state of a run of `tokenize`.

    Attributes:
        clips: the clips in the plan.
        done: those that are done.
        bad: those that cannot be read.
        unlisted: folders and tars that cannot be searched.
        changed: clips whose source has changed since they were done.
        audio_seconds: the audio done in this run, each channel counted, in seconds.
        wall_seconds: the time that the run has taken, in seconds.
        busy: the share of time in which the encoder threads computed.
        before: the clips that were done or bad before this run.
        remade: files of the token set that were lost, cut or altered, and are made again.
        passed: what the search passed over, by kind: {".txt": 12}.
    """

    clips: int
    done: int
    bad: int
    unlisted: int
    changed: int
    audio_seconds: float
    wall_seconds: float
    busy: float
    before: int = 0
    remade: int = 0
    passed: Mapping[str, int] = field(default_factory=dict)

    @property
    def speed(self) -> float:
        """Seconds of audio per second of the run: times real time."""
        return self.audio_seconds / max(self.wall_seconds, 1e-9)

    @property
    def eta_seconds(self) -> float | None:
        """Seconds to the end if the clips to come are like those of this run; None at the start."""
        gone = self.done + self.bad - self.before
        return (self.clips - self.done - self.bad) * self.wall_seconds / gone if gone else None
