"""The page of melcap as a visitor uses it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SECONDS = 60_000
"""The longest wait in milliseconds; a slow machine needs a tenth of it."""


@dataclass
class Page:
    """A page, and what its browser said meanwhile.

    Attributes:
        page: the page of Playwright.
        site: the address.
        requests: the addresses that were asked for.
        complaints: what the browser wrote to its console, and errors that nobody caught.
    """

    page: Any
    site: str
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    @classmethod
    @contextmanager
    def opened(cls, browser: Any, site: str, *, script: str = "", **context: Any) -> Iterator[Page]:
        """Open the page in a context of its own.

        Args:
            browser: the browser of Playwright.
            site: the address of the page.
            script: JavaScript that runs before that of the page.
            context: options of the context, such as a viewport.
        """
        own = browser.new_context(**{"viewport": {"width": 1280, "height": 1000}, **context})
        own.add_init_script(script)
        page = own.new_page()
        seen = cls(page, site)
        page.on("request", lambda request: seen.requests.append(request.url))
        page.on("pageerror", lambda error: seen.complaints.append(str(error)))
        page.on("console", lambda message: seen.complaints.append(message.text))
        page.goto(site)
        yield seen
        own.close()

    def clip(self, name: str) -> None:
        """Click on one of the clips, and wait for the result."""
        self.page.click(f"[data-clip={name}]")
        self.wait()

    def file(self, path: Path) -> None:
        """Choose a file, and wait for the result."""
        self.page.set_input_files("#file", str(path))
        self.wait()

    def wait(self) -> None:
        """Wait until the page has nothing to do, and fail if it shows an error."""
        self.page.locator("#cancel[hidden]").wait_for(state="attached", timeout=SECONDS)
        assert not self.page.is_visible("#alert"), self.page.inner_text("#message")
        assert self.page.inner_text("#status") == "Done."

    def refused(self, path: Path) -> str:
        """Choose a file, and return the sentence with which it is refused."""
        self.page.set_input_files("#file", str(path))
        return self.error()

    def error(self) -> str:
        """Wait for an error, and return its sentence."""
        self.page.locator("#alert:not([hidden])").wait_for(timeout=SECONDS)
        assert self.page.locator("#cancel[hidden]").count() == 1
        return str(self.page.inner_text("#message"))

    def figures(self) -> dict[str, str]:
        """Return the figures of the result by their names."""
        names = self.page.locator("#figures dt").all_inner_texts()
        return dict(zip(names, self.page.locator("#figures dd").all_inner_texts(), strict=True))

    def saved(self, kind: str) -> tuple[str, bytes]:
        """Return name and content of a download, `melcap` or `wav`."""
        with self.page.expect_download() as download:
            self.page.click(f"#save-{kind}")
        return download.value.suggested_filename, Path(download.value.path()).read_bytes()
