"""The pages agree with the repository: links, the map, and the length of the README."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, ROOT, name

LINK = re.compile(r"\]\(([^)\s#:]+)(?:#[^)\s]*)?\)")
PATH = re.compile(r"`((?:[\w.-]+/)+[\w.-]*|[\w-]+\.(?:yml|toml|md))`")


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_to_files(page: Path) -> None:
    """A link to a folder works on a code host only, and not in the site."""
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        assert (page.parent / link).is_file(), f"{name(page)}: {link}"


def test_the_map_names_what_exists() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    paths = PATH.findall(text)
    assert len(paths) > 50
    parents = [ROOT, ROOT / "melcap" / "bulk", ROOT / "melcap" / "training"]
    missing = [path for path in paths if not any((parent / path).exists() for parent in parents)]
    assert not missing


def test_every_package_is_on_the_map() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    packages = [path.parent for path in (ROOT / "melcap").glob("*/__init__.py")]
    missing = [name(package) for package in packages if f"`{name(package)}/`" not in text]
    assert not missing


def test_contributing_asks_the_questions_that_the_map_answers() -> None:
    asked = re.findall(
        r"^\d+\. (.+\?)$", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.M
    )
    answers = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    answered = re.findall(r"^\| (.+\?) \| (.+) \|$", answers, re.M)
    assert len(asked) == 10
    assert asked == [question for question, _ in answered]
    for _, answer in answered:
        assert all((ROOT / path).is_file() for path in re.findall(r"`([^`]+)`", answer)), answer


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= 1200


def test_every_page_is_in_the_navigation() -> None:
    listed = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    pages = [path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")]
    missing = [page for page in pages if f"- {page}\n" not in listed]
    assert [page for page in missing if not page.startswith("scorecard/")] == []
