"""Hooks of the documentation site, which mkdocs.yml names.

Pages link to files of the repository by relative paths, which work in a clone and on a code host.
In the site, each file outside docs/ that a page links to goes along below `repository/`: Markdown
and text such as Python as pages, anything else as it is.

The listening page gets its clips: those of examples/audio, decoded by the codec as it is now.

`ReadDocstrings` is an extension of griffe, which reads the docstrings for the API reference.
"""

from __future__ import annotations

import os
import posixpath
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from griffe import Attribute, ExprCall, Extension, Object
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
DOCS, CLIPS = ROOT / "docs", ROOT / "examples" / "audio"
OUTSIDE = "repository"
"""The folder of the site for files from outside docs/."""

AS_TEXT = {".py": "python", ".toml": "toml", ".sh": "sh", ".patch": "diff", "": ""}
"""Suffixes of files that are shown as text, each with its language."""

PLAYERS = "<!-- players -->"
LINK = re.compile(r"(\]\()([^)\s#:]+)((?:#[^)\s]*)?\))")
"""A relative link or picture: the opening, the path, and the rest."""


def on_files(files: Files, config: Any) -> Files:
    """Add the files that pages link to, those that these link to, and the decoded clips."""
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
    for path in sorted(Path(_listening().name).glob("*.*")):
        files.append(File.generated(config, f"clips/{path.name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Point links at the places that files have in the site, and put in the players."""
    uri = page.file.src_uri
    origin = ROOT / uri.removeprefix(f"{OUTSIDE}/") if uri.startswith(OUTSIDE) else DOCS / uri

    def moved(match: re.Match[str]) -> str:
        opening, path, rest = match.groups()
        target = (origin.parent / path).resolve()
        if not target.is_file():
            return match.group()  # left for mkdocs to complain of
        return opening + posixpath.relpath(_uri(target), posixpath.dirname(uri) or ".") + rest

    return LINK.sub(moved, markdown).replace(PLAYERS, _players())


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


@cache
def _listening() -> TemporaryDirectory[str]:
    """Return a folder with each example clip, decoded, and a picture of before and after."""
    temporary = TemporaryDirectory(prefix="melcap-docs-")  # it goes when the build ends
    folder = Path(temporary.name)
    _melcap("transcode", str(CLIPS), "--out", f"{folder}/", "--format", "flac", "--quiet")
    for decoded in sorted(folder.rglob("*.flac")):
        name = decoded.stem
        decoded.rename(folder / f"{name}-decoded.flac")
        original = CLIPS / f"{name}.flac"
        (folder / f"{name}.flac").write_bytes(original.read_bytes())
        _melcap("plot", str(original), "--out", str(folder / f"{name}.png"), "--quiet")
    return temporary


def _melcap(*words: str) -> None:
    """Run a melcap command with the Python that builds the site, or with MELCAP_PYTHON."""
    python = os.environ.get("MELCAP_PYTHON", sys.executable)
    done = subprocess.run(
        [python, "-m", "melcap", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise PluginError(
            f"{python} -m melcap {' '.join(words)} failed; the listening page needs it. Install "
            f"melcap[plot] beside mkdocs, or set MELCAP_PYTHON. Its error: {done.stderr[-2000:]}"
        )


def _players() -> str:
    """Return a table of players, original beside decoded, with a picture of each clip."""
    parts = []
    for clip in sorted(CLIPS.glob("*.flac"), reverse=True):
        name = clip.stem
        parts += [
            f"## {name.capitalize()}",
            "| original | decoded, 3.36 kbps |\n| --- | --- |\n"
            f'| <audio controls preload="none" src="../clips/{name}.flac"></audio> '
            f'| <audio controls preload="none" src="../clips/{name}-decoded.flac"></audio> |',
            f"![Log-mel of {name} before and after, and its tokens](clips/{name}.png)",
        ]
    return "\n\n".join(parts)


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
