"""The configurations that have a name, for `melcap train --codec NAME`."""

from __future__ import annotations

from importlib import resources

from melcap.config.lite import CodecConfig

NAMES = ("lite", "half-rate")
"""The names: the model that ships, and one with half of its tokens a second."""


def named(name: str) -> CodecConfig:
    """Return the configuration with one of the `NAMES`.

    Example:
        >>> from melcap.config.named import named
        >>> round(named("lite").tokens_per_second), round(named("half-rate").tokens_per_second)
        (258, 129)
    """
    if name == "lite":
        return CodecConfig()
    file = resources.files("melcap") / "config" / f"{name}.json"
    return CodecConfig.from_json(file.read_text(encoding="utf-8"))
