"""The checks of single settings: tests of a value, with the words that say what is possible.

`TrainingConfig` checks combinations of settings.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from melcap.config import CodecConfig
from melcap.errors import InputError


class Check(NamedTuple):
    """A test of a value of any type, as JSON may hold anything.

    Attributes:
        holds: returns whether the value is possible.
        possible: what is possible, in words that follow "it must be".
    """

    holds: Callable[[Any], bool]
    possible: str


SWITCH = Check(lambda value: type(value) is bool, "true or false")


def one_of(*values: int | str) -> Check:
    """Return a check for a whole number or a word that is among some."""
    words = " or ".join(map(str, values))
    return Check(lambda value: type(value) in (int, str) and value in values, words)


def whole(least: int) -> Check:
    """Return a check for a whole number of at least `least`."""
    return Check(
        lambda value: type(value) is int and value >= least,
        f"a whole number of at least {least}",
    )


def optional(check: Check) -> Check:
    """Return the same check, which lets None pass."""
    return Check(lambda value: value is None or check.holds(value), f"{check.possible}, or null")


def above(least: float) -> Check:
    """Return a check for a finite number above `least`."""
    return Check(lambda value: _is_number(value) and value > least, f"a number above {least:g}")


def at_least(least: float) -> Check:
    """Return a check for a finite number of at least `least`."""
    return Check(
        lambda value: _is_number(value) and value >= least,
        f"a number of at least {least:g}",
    )


def at_most(most: float) -> Check:
    """Return a check for a finite number of at most `most`."""
    return Check(
        lambda value: _is_number(value) and value <= most,
        f"a number of at most {most:g}",
    )


def share(one_is_possible: bool) -> Check:
    """Return a check for a number from 0 to 1, with or without 1 itself."""
    if one_is_possible:
        return Check(lambda value: _is_number(value) and 0 <= value <= 1, "a number from 0 to 1")
    return Check(
        lambda value: _is_number(value) and 0 <= value < 1,
        "a number from 0 to 1, and below 1",
    )


def pair(each: Check) -> Check:
    """Return a check for two values that each pass a check."""
    return Check(
        lambda value: isinstance(value, tuple) and len(value) == 2 and all(map(each.holds, value)),
        f"a pair, each {each.possible}",
    )


def rising_pair(each: Check) -> Check:
    """Return a check for two values that each pass a check, the second not below the first."""
    both = pair(each)
    return Check(
        lambda value: both.holds(value) and value[0] <= value[1],
        f"{both.possible}, the second not below the first",
    )


def by_name(each: Check) -> Check:
    """Return a check for a mapping whose keys are names and whose values each pass a check."""
    return Check(
        lambda value: (
            isinstance(value, Mapping)
            and all(isinstance(name, str) for name in value)
            and all(map(each.holds, value.values()))
        ),
        f"an object that gives names values, each {each.possible}",
    )


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= sys.float_info.max


_NOT_NEGATIVE = at_least(0)

CHECKS: dict[str, Check] = {
    "stage": one_of(1, 2),
    "from_mels": SWITCH,
    "joint": SWITCH,
    "codec": Check(lambda value: isinstance(value, CodecConfig), "the configuration of a codec"),
    "seed": whole(0),
    "batch": whole(1),
    "columns": whole(1),
    "gain_db": rising_pair(at_most(0)),
    "class_weights": by_name(_NOT_NEGATIVE),
    "narrowed": share(one_is_possible=True),
    "rate": above(0),
    "warmup": whole(1),
    "average": share(one_is_possible=False),
    "muon": SWITCH,
    "betas": pair(share(one_is_possible=False)),
    "weight_decay": _NOT_NEGATIVE,
    "clip": above(0),
    "loudness": _NOT_NEGATIVE,
    "encoder_rate": share(one_is_possible=True),
    "commitment": _NOT_NEGATIVE,
    "picture_weight": _NOT_NEGATIVE,
    "codebook_warmup": whole(0),
    "codebook_decay": share(one_is_possible=False),
    "codebook_dead": _NOT_NEGATIVE,
    "stft_weight": _NOT_NEGATIVE,
    "mel_weight": _NOT_NEGATIVE,
    "complex_weight": _NOT_NEGATIVE,
    "phase_weight": _NOT_NEGATIVE,
    "texture_weight": _NOT_NEGATIVE,
    "decoder_only": SWITCH,
    "constant_phase": SWITCH,
    "discriminators": whole(0),
    "discriminator_kind": one_of("waves", "magnitudes"),
    "discriminator_columns": optional(whole(1)),
    "spectral": _NOT_NEGATIVE,
    "features": _NOT_NEGATIVE,
    "adversarial": _NOT_NEGATIVE,
}
"""The check of each setting of `TrainingConfig`, in the same order."""


def parsed(name: str, value: Any) -> Any:
    """Return a setting's value, from JSON or not, once it has passed its check.

    Raises:
        InputError: for a name that is no setting, and a value that is not possible.
        WeightsError: for a codec that is not possible.
    """
    require(name in CHECKS, f"no setting is called {name!r}: there are {', '.join(CHECKS)}")
    if isinstance(value, list):
        value = tuple(value)
    if name == "codec" and isinstance(value, Mapping):
        value = CodecConfig.from_json(json.dumps(value))
    check(name, value)
    return value


def check(name: str, value: Any) -> None:
    """Refuse a value that the setting cannot have.

    Raises:
        InputError: naming the setting, the value and what is possible.
    """
    found = CHECKS[name]
    require(found.holds(value), f"{name} cannot be {value!r}: it must be {found.possible}")


def require(holds: bool, message: str) -> None:
    """Raise InputError, with the words that every error of a configuration begins with."""
    if not holds:
        raise InputError(f"training configuration: {message}")
