"""Take the screenshots of the documentation: `python web/screenshots.py`, after `make web`."""

from __future__ import annotations

from pathlib import Path

from chromium import chromium
from serve import served

DOCS = Path(__file__).resolve().parents[1] / "docs"
SIZES = {"browser-1280.jpg": (1280, 1000), "browser-390.jpg": (390, 844)}


def main() -> None:
    """Show a clip in windows of two widths, and write a picture of each page."""
    with served() as site, chromium() as browser:
        for name, (width, height) in SIZES.items():
            page = browser.new_page(viewport={"width": width, "height": height})
            page.goto(site)
            page.click("[data-clip=speech]")
            page.locator("#status", has_text="Done.").wait_for()
            page.fill("#seek", "2.5")
            page.screenshot(path=DOCS / name, type="jpeg", quality=80, full_page=True)


if __name__ == "__main__":
    main()
