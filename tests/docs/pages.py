"""The pages of the documentation, and the code in them."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TOP = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "melcap/weights/README.md")
PAGES = tuple(sorted([*(ROOT / "docs").rglob("*.md"), *(ROOT / name for name in TOP)]))
GENERATED = ROOT / "docs" / "scorecard"
"""Tables that `melcap evaluate` wrote."""

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_INDENTED = re.compile(r"(?:^ {4}.*\n)+", re.MULTILINE)
_COMMAND = re.compile(
    r"`((?:(?:melcap|make|python -m (?:melcap|recipes))[\s.]|python (?:profiling|examples)/)[^`]+)`"
)


def name(path: Path) -> str:
    """Return the path of a page from the root of the repository."""
    return path.relative_to(ROOT).as_posix()


def shell_lines(path: Path) -> list[str]:
    """Return the command lines in the shell blocks of a page, continued lines joined."""
    text = path.read_text(encoding="utf-8")
    blocks = [code for language, code in _FENCE.findall(text) if language in ("sh", "bash")]
    blocks += _INDENTED.findall(_FENCE.sub("", text))
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if line.strip()]


def inline_commands(path: Path) -> list[str]:
    """Return the commands of melcap, of its scripts and of make that stand in backticks."""
    text = _FENCE.sub("", path.read_text(encoding="utf-8"))
    return [" ".join(code.split()) for code in _COMMAND.findall(text)]
