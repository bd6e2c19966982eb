"""Share fields with bounds, and checks that name the field, among all configurations."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Any, TypeVar

from melcap.errors import WeightsError

Config = TypeVar("Config")

MAX_TEXT = 1 << 20
"""The most characters of a configuration as JSON; a real one has about a thousand."""
MAX_LEVELS = 8
"""The most numbers of a tuple."""
_NAME = re.compile("[ -~]{1,64}")
_KINDS = {
    int: "a whole number",
    float: "a number",
    bool: "a truth value",
    tuple: f"at most {MAX_LEVELS} whole numbers",
}


def require(holds: bool, message: str) -> None:
    """Raise a WeightsError with a message unless a condition holds."""
    if not holds:
        raise WeightsError(f"configuration: {message}")


def require_name(name: object) -> None:
    """Raise a WeightsError unless this can be the name of a model."""
    require(
        isinstance(name, str) and _NAME.fullmatch(name) is not None,
        f"name must be 1 to 64 printable ASCII characters, not {name!r:.80}",
    )


def bounded(default: Any, low: float, high: float) -> Any:
    """Return a field for a number from `low` to `high`, or for a tuple of such numbers.

    A weights file may come from anywhere, and its network is built before its weights are read. The
    bounds are far beyond what is useful.
    """
    return field(default=default, metadata={"bounds": (low, high)})


def one_of(*choices: str) -> Any:
    """Return a field for one of some words, the first of which is the default."""
    return field(default=choices[0], metadata={"choices": choices})


def check_fields(config: Any) -> None:
    """Check the type of every field of a configuration, the bounds of its numbers, its choices."""
    for each in dataclasses.fields(config):
        value, kind = getattr(config, each.name), type(each.default)
        if choices := each.metadata.get("choices"):
            require(
                value in choices,
                f"{each.name} must be one of {', '.join(choices)}, not {value!r:.80}",
            )
            continue
        low, high = each.metadata.get("bounds", (False, True))
        numbers = value if kind is tuple else (value,)
        allowed = {tuple: (int,), float: (float, int)}.get(kind, (kind,))
        require(
            isinstance(numbers, tuple)
            and len(numbers) <= MAX_LEVELS
            and all(type(number) in allowed and low <= number <= high for number in numbers),
            f"{each.name} must be {_KINDS[kind]} from {low:g} to {high:g}, not {value!r:.80}",
        )


def tuples(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a part with tuples in place of the lists of JSON."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}


def parsed(text: str, build: Callable[[Mapping[str, Any]], Config]) -> Config:
    """Return the configuration that `build` makes of the content of a JSON text.

    Raises:
        WeightsError: for a text that is too long or no JSON, and for what `build` cannot use.
    """
    require(len(text) <= MAX_TEXT, f"{len(text)} characters of JSON are more than {MAX_TEXT}")
    try:
        return build(json.loads(text))
    except RecursionError:
        raise WeightsError("not a melcap configuration: JSON nested too deeply") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:  # huge numbers too
        raise WeightsError(f"not a melcap configuration: {error}") from error
