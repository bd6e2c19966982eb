"""Configurations of any architecture from their JSON."""

from __future__ import annotations

from melcap.config.base import ARCHITECTURE, BaseConfig
from melcap.config.fields import parsed, require
from melcap.config.lite import CodecConfig

AnyConfig = CodecConfig | BaseConfig
OWN = "lite"
"""The value of `architecture` for melcap's own architecture, and where there is none."""


def from_json(text: str) -> AnyConfig:
    """Return the configuration that `to_json` of some architecture wrote.

    Raises:
        WeightsError: for a text that is not such a configuration.

    Example:
        >>> from melcap.config import BaseConfig, CodecConfig, from_json
        >>> from_json(BaseConfig().to_json()) == BaseConfig()
        True
        >>> from_json(CodecConfig().to_json()) == CodecConfig()
        True
    """
    architecture = parsed(text, lambda data: data.get("architecture", OWN))
    require(
        architecture in (OWN, ARCHITECTURE),
        f"architecture must be {OWN} or {ARCHITECTURE}, not {architecture!r:.80}: a newer melcap "
        "may know it",
    )
    if architecture == ARCHITECTURE:
        return BaseConfig.from_json(text)
    return CodecConfig.from_json(text)
