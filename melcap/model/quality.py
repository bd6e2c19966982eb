"""Levels of decoding quality, each with its number of Griffin-Lim steps."""

from __future__ import annotations

from typing import Literal

from melcap.config import CodecConfig
from melcap.errors import InputError

Quality = Literal["fast", "default", "best"]
QUALITIES: dict[Quality, float] = {"fast": 0.25, "default": 1, "best": 4}
"""Griffin-Lim steps of each quality of decoding, as multiples of the configuration's."""


def griffin_lim_steps(config: CodecConfig, quality: Quality) -> int:
    """Return the number of Griffin-Lim steps for a quality.

    Args:
        config: configuration of the codec.
        quality: the quality of decoding.

    Raises:
        InputError: for an unknown quality, or any but "default" if the configuration has no such
            steps.

    Example:
        >>> import melcap
        >>> from melcap.model.quality import griffin_lim_steps
        >>> griffin_lim_steps(melcap.load().config, "fast")
        4
    """
    if quality not in QUALITIES:
        raise InputError(f"quality must be one of {', '.join(QUALITIES)}, not {quality!r:.80}")
    steps = config.vocoder.griffin_lim_steps
    if quality != "default" and not steps:
        raise InputError(f"{config.name} has no Griffin-Lim steps: its only quality is 'default'")
    return max(1, round(steps * QUALITIES[quality])) if steps else 0
