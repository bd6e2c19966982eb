"""Tokens of windows, which come in any order, put together to clips."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from melcap.bulk.encoding.encode import EncodedWindow
from melcap.bulk.reading.messages import Bad, End


@dataclass(frozen=True, eq=False)
class EncodedClip:
    """A clip and all its tokens, uint16, in the order of `TokenRow`."""

    end: End
    tokens: npt.NDArray[np.uint16]


@dataclass
class _Parts:
    tokens: dict[tuple[int, int], npt.NDArray[np.uint16]] = field(default_factory=dict)
    end: End | None = None


class Assembler:
    """Collects the tokens of windows, and returns each clip when it is complete or bad."""

    def __init__(self) -> None:
        self._clips: dict[int, _Parts | None] = {}
        """None stands for a bad clip, of which windows may still come."""

    def take(self, result: EncodedWindow | End | Bad) -> EncodedClip | Bad | None:
        """Take a result, and return its clip if that is now complete or bad."""
        parts = self._clips.setdefault(result.clip, _Parts())
        if parts is None:
            return None
        if isinstance(result, Bad):
            self._clips[result.clip] = None
            return result
        if isinstance(result, End):
            parts.end = result
        else:
            parts.tokens[result.channel, result.index] = result.tokens
        if parts.end is None or len(parts.tokens) < parts.end.channels * parts.end.windows:
            return None
        del self._clips[result.clip]
        tokens = np.concatenate([parts.tokens[key] for key in sorted(parts.tokens)])
        return EncodedClip(parts.end, tokens)
