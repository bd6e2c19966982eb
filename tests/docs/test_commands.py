"""Every command line in the pages exists: commands, options, modules, scripts and make targets."""

from __future__ import annotations

import ast
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
SCRIPT = re.compile(r"python3? ((?:examples|profiling|tests)/[\w/.]+\.py)(.*)")
OPTION_CALLS = ("Option", "add_argument")
TARGETS = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))


def melcap_calls(line: str) -> Iterator[list[str]]:
    """Yield the words of each melcap command in a line with pipes."""
    for part in line.split("#", 1)[0].split("|"):
        call = part.split(" < ")[0].split(" > ")[0].strip()
        call = re.sub(r"^(?:python|torchrun(?: --\S+ \S+)*) -m ", "", call)
        if call.startswith("melcap "):
            yield shlex.split(call)[1:]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_melcap_commands_and_their_options_exist(page: Path) -> None:
    for line in shell_lines(page):
        for words in melcap_calls(line):
            parse(words, line)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_in_sentences_exist(page: Path) -> None:
    """Sentences leave arguments out, so only the commands and the options are checked."""
    for text in inline_commands(page):
        for words in melcap_calls(text):
            if words[0].islower():  # in `melcap COMMAND --help` any command is meant
                parse(words, text, whole=False)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_modules_scripts_and_targets_exist(page: Path) -> None:
    lines = [*shell_lines(page), *inline_commands(page)]
    for line in lines:
        for module in re.findall(r"python3? -m ((?:melcap|recipes)[\w.]*)", line):
            assert importlib.util.find_spec(module) is not None, line
        for script, rest in re.findall(SCRIPT, line.split(" #", 1)[0]):
            assert (ROOT / script).is_file(), line
            known = options_of(ROOT / script)
            assert {word.split("=")[0] for word in re.findall(r"(?<=\s)--\S+", rest)} <= known, line
        for targets in re.findall(r"^make ((?:[a-z][\w-]* ?)+)", line):
            assert set(targets.split()) <= TARGETS, line


def test_every_command_is_in_the_quickstart() -> None:
    text = (ROOT / "docs" / "quickstart.md").read_text(encoding="utf-8")
    table = text.split("## Command line")[1]
    missing = [command for command in COMMANDS.commands if f"`melcap {command}`" not in table]
    missing = [command for command in missing if f"`{command}`" not in table]
    assert not missing


def options_of(script: Path) -> set[str]:
    """Return the long options of a script, by its source: importing it may take seconds.

    They are the arguments of `main`, which typer reads, and the names given to typer or argparse.
    """
    options = {"--help"}
    for node in ast.walk(ast.parse(script.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef) and node.name == "main":
            options |= {f"--{each.arg.replace('_', '-')}" for each in node.args.args}
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") in OPTION_CALLS:
            names = [each.value for each in node.args if isinstance(each, ast.Constant)]
            options |= {each for each in names if str(each).startswith("--")}
    return options


def parse(words: list[str], line: str, whole: bool = True) -> None:
    """Let the parser of the command read the words, without running anything.

    Args:
        words: the command's name and what follows it.
        line: where they stand, for the message of a failure.
        whole: whether required arguments must be there.
    """
    if words[0].startswith("-"):
        assert words[0] in ("--help", "--version", "-h"), line
        return
    command = COMMANDS.commands.get(words[0])
    assert command is not None, f"no such command: {line}"
    context = command.context_class(command, info_name=words[0])
    values, _, _ = command.make_parser(context).parse_args(list(words[1:]))
    required = [parameter.name for parameter in command.params if parameter.required and whole]
    assert not [name for name in required if values.get(name) in (None, ())], line
