"""Run tests with pytest and keep their results from moment to moment.

    python profiling/device_tests.py --out OUT -- -m gpu tests/kernels/test_sanitized.py

What follows `--` goes to pytest. device-tests.json names what failed and counts the rest, even
when the run is stopped before its end.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import pytest
import torch
import typer
from machine import provenance

from melcap.io.files import replacing


class Recorder:
    """A pytest plugin that writes the outcome of every test when it ends."""

    def __init__(self, path: Path, origin: dict[str, str]) -> None:
        self._path = path
        self._outcomes: Counter[str] = Counter()
        self._found: dict[str, Any] = {"origin": origin, "finished": False, "failed": []}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count the call of a test, and failures and skips of its set-up and its end."""
        if report.when == "call" or report.outcome != "passed":
            self._outcomes[report.outcome] += 1
            if report.failed:
                reason = report.longreprtext.strip().splitlines()[-1:]
                self._found["failed"].append({"test": report.nodeid, "reason": "".join(reason)})
            self._write()

    def pytest_sessionfinish(self) -> None:
        """Note that the run came to its end."""
        self._found["finished"] = True
        self._write()

    def _write(self) -> None:
        with replacing(self._path) as temporary:
            found = self._found | {"outcomes": dict(self._outcomes)}
            temporary.write_text(json.dumps(found, indent=1) + "\n")


def main(
    arguments: Annotated[list[str], typer.Argument(help="Arguments for pytest.")],
    out: Annotated[Path, typer.Option(help="The folder for device-tests.json.")],
) -> None:
    """Run pytest, and end with its exit status."""
    out.mkdir(parents=True, exist_ok=True)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    recorder = Recorder(out / "device-tests.json", provenance(device))
    sys.exit(pytest.main(["-p", "no:cacheprovider", *arguments], plugins=[recorder]))


if __name__ == "__main__":
    typer.run(main)
