"""Messages of a reading process about its clips."""

from __future__ import annotations

from dataclasses import dataclass

from melcap.io.resample import FloatArray


@dataclass(frozen=True, eq=False)
class Window:
    """A window of one channel of a clip.

    Attributes:
        clip: the number of the clip in the plan.
        channel: the channel.
        index: the number of the window in the channel.
        columns: the number of columns that the window gives.
        samples: float32 [samples], with the context on both sides.
    """

    clip: int
    channel: int
    index: int
    columns: int
    samples: FloatArray


@dataclass(frozen=True)
class End:
    """The end of a clip that was read.

    Attributes:
        clip: the number of the clip in the plan.
        sample_rate: the rate of the source in Hz.
        channels: the number of channels.
        samples: the samples of a channel at that rate.
        windows: the number of windows of a channel.
    """

    clip: int
    sample_rate: int
    channels: int
    samples: int
    windows: int


@dataclass(frozen=True)
class Bad:
    """A clip that cannot be read, and the reason."""

    clip: int
    reason: str


Message = Window | End | Bad
