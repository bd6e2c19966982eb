"""The page in a real browser: `make web` builds it, `make web-test` runs these tests."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.web.page import Page

ROOT = Path(__file__).parents[2]
WEB = ROOT / "web"


def script(path: str) -> ModuleType:
    """Return a script of the repository as a module."""
    spec = importlib.util.spec_from_file_location(f"script_{Path(path).stem}", ROOT / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def dist() -> Path:
    """Return the page that `make web` built."""
    folder = WEB / "dist"
    if not (folder / "index.html").exists():
        pytest.fail("web/dist/ is not built: run make web")
    return folder


@pytest.fixture(scope="session", params=[True], ids=["isolated"])
def site(dist: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """Return the address of the page, isolated from other origins unless a test asks otherwise."""
    with script("web/serve.py").served(dist, isolated=request.param) as address:
        yield address


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Return a headless Chromium."""
    pytest.importorskip("playwright.sync_api")
    with script("web/chromium.py").chromium() as running:
        yield running


@pytest.fixture
def page(browser: Any, site: str) -> Iterator[Page]:
    """Return the page as a new visitor sees it."""
    with Page.opened(browser, site) as page:
        yield page


@pytest.fixture(scope="module")
def used_page(browser: Any, site: str) -> Iterator[Page]:
    """Return a page for a whole module, whose codec stays loaded."""
    with Page.opened(browser, site) as page:
        yield page
