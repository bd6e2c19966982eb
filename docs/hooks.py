"""Hooks of the documentation site, which mkdocs.yml names.

Pages link to files of the repository by relative paths, which work in a clone and on a code host.
In the site, each file outside docs/ that a page links to goes along below `repository/`: Markdown
and text such as Python as pages, anything else as it is.

The listening page gets its clips from docs/listening.py, which runs the codec as it is now.

`ReadDocstrings` is an extension of griffe, which reads the docstrings for the API reference.
"""

from __future__ import annotations

import posixpath
import re
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import listening
from griffe import Attribute, ExprCall, Extension, Object
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
OUTSIDE = "repository"
"""The folder of the site for files from outside docs/."""

AS_TEXT = {".py": "python", ".toml": "toml", ".sh": "sh", ".patch": "diff", "": ""}
"""Suffixes of files that are shown as text, each with its language."""

PLAYERS, BLIND_TEST = "<!-- players -->", "<!-- blind test -->"
"""The marks in the listening page where these go."""

LINK = re.compile(r"(\]\()([^)\s#:]+)((?:#[^)\s]*)?\))")
"""A relative link or picture: the opening, the path, and the rest."""


def on_files(files: Files, config: Any) -> Files:
    """Add the files that pages link to, those that these link to, and the clips."""
    pages = [Path(file.abs_src_path) for file in files.documentation_pages()]
    pages += [ROOT / name for name in ("CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")]
    known = {Path(file.abs_src_path) for file in files}
    while pages:
        page = pages.pop()
        if page not in known and page.is_file():
            known.add(page)
            files.append(_outside(page, config))
        if page.suffix != ".md":
            continue
        for _, path, _ in LINK.findall(page.read_text(encoding="utf-8")):
            target = (page.parent / path).resolve()
            if target not in known and target.is_file() and ROOT in target.parents:
                pages.append(target)
    for path in sorted(_clips().glob("*.*")):
        place = f"{listening.PLACE}/{path.name}"
        files.append(File.generated(config, place, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Point links at the places that files have in the site, and put in players and blind test."""
    uri = page.file.src_uri
    origin = ROOT / uri.removeprefix(f"{OUTSIDE}/") if uri.startswith(OUTSIDE) else DOCS / uri

    def moved(match: re.Match[str]) -> str:
        opening, path, rest = match.groups()
        target = (origin.parent / path).resolve()
        if not target.is_file():
            return match.group()  # left for mkdocs to complain of
        return opening + posixpath.relpath(_uri(target), posixpath.dirname(uri) or ".") + rest

    markdown = LINK.sub(moved, markdown)
    if PLAYERS in markdown:
        markdown = markdown.replace(PLAYERS, listening.players(_clips()))
    return markdown.replace(BLIND_TEST, listening.blind_test())


def _uri(path: Path) -> str:
    """Return the place of a file of the repository among the sources of the site."""
    if DOCS in path.parents:
        return path.relative_to(DOCS).as_posix()
    page = ".md" if path.suffix in AS_TEXT else ""
    return f"{OUTSIDE}/{path.relative_to(ROOT).as_posix()}{page}"


def _outside(path: Path, config: Any) -> File:
    """Return a file from outside docs/ as one of the site."""
    if path.suffix not in AS_TEXT:
        return File.generated(config, _uri(path), abs_src_path=str(path))
    text = path.read_text(encoding="utf-8")
    title = f"# {path.relative_to(ROOT).as_posix()}"
    content = f"{title}\n\n````{AS_TEXT[path.suffix]}\n{text}````\n"
    return File.generated(config, _uri(path), content=content)


def _clips() -> Path:
    """Return the folder with what docs/listening.py makes."""
    return Path(_made().name)


@cache
def _made() -> TemporaryDirectory[str]:
    """Make that folder, which goes when the build ends."""
    temporary = TemporaryDirectory(prefix="melcap-docs-")
    try:
        listening.write_apart(Path(temporary.name))
    except RuntimeError as error:
        raise PluginError(str(error)) from error
    return temporary


class ReadDocstrings(Extension):
    """An extension of griffe for the docstrings and fields of this repository."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Read `Example:` in a docstring as a section of code, as `Examples:` is read."""
        if obj.docstring is not None:
            obj.docstring.value = re.sub(r"(?m)^Example:$", "Examples:", obj.docstring.value)

    def on_attribute_instance(self, *, attr: Attribute, **_: Any) -> None:
        """Show the default of a field of a configuration without its bounds."""
        if isinstance(attr.value, ExprCall) and str(attr.value.function) in ("bounded", "one_of"):
            attr.value = attr.value.arguments[0]
