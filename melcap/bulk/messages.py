"""Messages of a reading process about its clips."""

from __future__ import annotations

from dataclasses import dataclass

from melcap.io.resample import FloatArray


@dataclass(frozen=True, eq=False)
class Window:
    """The `index`-th window of a channel: float32 [samples] with its context, for `columns`."""

    clip: int
    channel: int
    index: int
    columns: int
    samples: FloatArray


@dataclass(frozen=True)
class End:
    """A clip was read to its end: `samples` per channel at `sample_rate`, in so many windows."""

    clip: int
    sample_rate: int
    channels: int
    samples: int
    windows: int


@dataclass(frozen=True)
class Bad:
    """A clip that cannot be read, and why."""

    clip: int
    reason: str


Message = Window | End | Bad
