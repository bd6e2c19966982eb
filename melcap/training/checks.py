"""Checks of single settings: a test of a value, and the words that say what is possible."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple


class Check(NamedTuple):
    """A test of a value of any type, as JSON may hold anything.

    Attributes:
        holds: returns whether the value is possible.
        possible: what is possible, in words that follow "it must be".
    """

    holds: Callable[[Any], bool]
    possible: str


SWITCH = Check(lambda value: type(value) is bool, "true or false")


def one_of(*values: int) -> Check:
    """Return a check for a whole number that is among some."""
    words = " or ".join(map(str, values))
    return Check(lambda value: type(value) is int and value in values, words)


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
