"""Every command line in the pages exists: commands, options, modules, scripts and make targets."""

from __future__ import annotations

import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from melcap.cli.commands import app
from tests.docs.pages import PAGES, ROOT, inline_commands, name, shell_lines

COMMANDS: Any = typer.main.get_command(app)
TARGETS = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))


def melcap_calls(line: str) -> Iterator[list[str]]:
    """Yield the words of each melcap command in a line with pipes."""
    for part in line.split("#", 1)[0].split("|"):
        call = part.split(" < ")[0].split(" > ")[0].strip().removeprefix("python -m ")
        if call.startswith("melcap "):
            yield shlex.split(call)[1:]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_melcap_commands_and_their_options_exist(page: Path) -> None:
    for line in shell_lines(page):
        for words in melcap_calls(line):
            parse(words, line)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_in_sentences_exist(page: Path) -> None:
    """Sentences leave arguments out, so only the names of commands and options are checked."""
    for text in inline_commands(page):
        words = text.split()
        if words[0] != "melcap" or words[1].startswith("-") or not words[1].islower():
            continue
        command = COMMANDS.commands.get(words[1])
        assert command is not None, text
        known = {option for parameter in command.params for option in parameter.opts}
        known |= {option for parameter in command.params for option in parameter.secondary_opts}
        for word in words[2:]:
            option = word.split("=")[0]
            assert not option.startswith("-") or option == "-" or option in known, text


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_modules_scripts_and_targets_exist(page: Path) -> None:
    lines = [*shell_lines(page), *inline_commands(page)]
    for line in lines:
        for module in re.findall(r"python3? -m ((?:melcap|recipes)[\w.]*)", line):
            assert importlib.util.find_spec(module) is not None, line
        for script in re.findall(r"python3? ((?:examples|profiling|tests)/[\w/.]+\.py)", line):
            assert (ROOT / script).is_file(), line
        for targets in re.findall(r"^make ((?:[a-z][\w-]* ?)+)", line):
            assert set(targets.split()) <= TARGETS, line


def test_every_command_is_in_the_quickstart() -> None:
    text = (ROOT / "docs" / "quickstart.md").read_text(encoding="utf-8")
    table = text.split("## Command line")[1]
    missing = [command for command in COMMANDS.commands if f"`melcap {command}`" not in table]
    missing = [command for command in missing if f"`{command}`" not in table]
    assert not missing


def parse(words: list[str], line: str) -> None:
    """Let the parser of the command read the words, without running anything."""
    if words[0].startswith("-"):
        assert words[0] in ("--help", "--version", "-h"), line
        return
    command = COMMANDS.commands.get(words[0])
    assert command is not None, f"no such command: {line}"
    context = command.context_class(command, info_name=words[0])
    values, _, _ = command.make_parser(context).parse_args(list(words[1:]))
    required = [parameter.name for parameter in command.params if parameter.required]
    assert not [name for name in required if values.get(name) in (None, ())], line
