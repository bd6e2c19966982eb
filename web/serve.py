"""Serve the page on this machine: `python web/serve.py`, then open the address that it prints.

The page is isolated from other origins, so that the codec may use more than one thread.
"""

from __future__ import annotations

import argparse
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

DIST = Path(__file__).resolve().parent / "dist"


class Handler(SimpleHTTPRequestHandler):
    """Files of the page, with the headers that isolate it where `isolated` is set."""

    extensions_map: ClassVar[dict[str, str]] = {
        **SimpleHTTPRequestHandler.extensions_map,
        ".js": "text/javascript",
        ".mjs": "text/javascript",
        ".gz": "application/gzip",
    }

    def __init__(self, *given: Any, isolated: bool = True, **named: Any) -> None:
        self.isolated = isolated
        super().__init__(*given, **named)

    def end_headers(self) -> None:
        """Send the headers, and those that isolate the page."""
        if self.isolated:
            self.send_header("Cross-Origin-Opener-Policy", "same-origin")
            self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing for a request."""


def server(folder: Path = DIST, port: int = 0, *, isolated: bool = True) -> ThreadingHTTPServer:
    """Return a server of the folder on the loopback address.

    Args:
        folder: the folder.
        port: the port; 0 for any that is free.
        isolated: send the headers that allow threads.
    """
    handler = partial(Handler, directory=str(folder), isolated=isolated)
    return ThreadingHTTPServer(("127.0.0.1", port), handler)


@contextmanager
def served(folder: Path = DIST, *, isolated: bool = True) -> Iterator[str]:
    """Serve the folder while the block runs, and yield its address."""
    with server(folder, isolated=isolated) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}/"
        running.shutdown()


def main() -> None:
    """Read the command line, and serve until the program is interrupted."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--port", type=int, default=8000)
    arguments = parser.parse_args()
    if not (DIST / "index.html").exists():
        raise SystemExit(f"{DIST} is empty: run make web")
    with server(port=arguments.port) as running:
        print(f"http://127.0.0.1:{running.server_port}/")
        try:
            running.serve_forever()
        except KeyboardInterrupt:
            print()


if __name__ == "__main__":
    main()
