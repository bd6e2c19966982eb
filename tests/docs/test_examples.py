"""The Python in the pages and in the docstrings of melcap runs as it is written.

A block of a page that cannot run in a test has `<!--- skip: next -->` before it, which no reader
sees. The blocks of a page share their names.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from sybil import Sybil
from sybil.document import PythonDocStringDocument
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser
from sybil.parsers.rest import DocTestParser

from tests.docs.pages import PAGES, ROOT, name

READ = Sybil(parsers=[PythonCodeBlockParser(), SkipParser()])
DOCSTRINGS = Sybil(
    parsers=[DocTestParser()], document_types={".py": PythonDocStringDocument}, path=str(ROOT)
)
RUN = [page for page in PAGES if "```python\n" in page.read_text(encoding="utf-8")]
MODULES = [
    path
    for path in sorted((ROOT / "melcap").rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in a folder that has the clips of the repository, and takes what examples write."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN, ids=name)
def test_blocks_of_a_page_run(page: Path) -> None:
    for example in READ.parse(page).examples():
        example.evaluate()


@pytest.mark.slow
@pytest.mark.parametrize("module", MODULES, ids=name)
def test_examples_of_docstrings_run(module: Path) -> None:
    for example in DOCSTRINGS.parse(module).examples():
        example.evaluate()


def test_the_first_snippet_is_short_and_is_not_skipped() -> None:
    page = ROOT / "README.md"
    (block,) = READ.parse(page).examples()
    lines = [line for line in str(block.parsed).splitlines() if line and "import" not in line]
    assert len(lines) <= 10
