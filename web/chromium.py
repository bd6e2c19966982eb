"""Headless Chromium, for the tests, the screenshots and the measurements of the page."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser

NAMES = ("chromium", "chromium-browser", "google-chrome")
OPTIONS = (
    "--no-sandbox",  # the user may be root
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--no-first-run",
    "--disable-component-update",
    "--disable-background-networking",
    "--autoplay-policy=user-gesture-required",
    "--use-fake-device-for-media-stream",
)


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run a browser while the block runs.

    Raises:
        SystemExit: where there is no Chromium.
    """
    from playwright.sync_api import sync_playwright

    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        raise SystemExit("there is no chromium on the PATH: apt-get install chromium")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=OPTIONS)
        yield browser
        browser.close()
