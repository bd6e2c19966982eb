"""Break the code on purpose and check that a test notices: `make mutations`.

Each patch in this folder breaks one thing. It begins with the tests that must fail:

    Test: tests/kernels/test_log_mel.py::test_the_name_of_a_test
    Test: tests/kernels/test_registry.py

A unified diff follows, as `git diff` prints it. The script applies each patch to a copy of the
repository and runs its tests there. A patch that does not apply, tests that cannot be collected,
tests that pass and tests that fail without the patch are failures.

    python tests/mutations/run.py [--workers 2] [NAME ...]     names of patches, or parts of them
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryDirectory

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
COPIED = (
    ".github",
    "melcap",
    "kernels",
    "recipes",
    "profiling",
    "examples",
    "docs",
    "tests",
    "web",
)
LEFT_OUT = ("__pycache__", "node_modules", "dist")
FILES = tuple(path.name for path in ROOT.iterdir() if path.is_file())
SECONDS = 900


def main() -> int:
    """Run the patches named on the command line, or all, and return the exit status."""
    parser = ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", help="parts of the names of patches; default: all")
    parser.add_argument("--workers", type=int, default=2, help="patches that run at once")
    given = parser.parse_args()
    patches = [
        path
        for path in sorted(HERE.rglob("*.patch"))
        if not given.names or any(name in str(path.relative_to(HERE)) for name in given.names)
    ]
    if not patches:
        print(f"no patch is called {' or '.join(given.names) or '*.patch'}", file=sys.stderr)
        return 2
    copies: SimpleQueue[Path] = SimpleQueue()
    unnoticed = 0
    with TemporaryDirectory(prefix="melcap-mutations-") as folder:
        for number in range(min(given.workers, len(patches))):
            copies.put(copied(Path(folder) / str(number)))
        with ThreadPoolExecutor(given.workers) as pool:
            outcomes = pool.map(lambda patch: outcome(patch, copies), patches)
            for patch, problem in zip(patches, outcomes, strict=True):
                print(f"{problem or 'noticed'}: {patch.relative_to(HERE)}", flush=True)
                unnoticed += bool(problem)
    print(f"{len(patches) - unnoticed} of {len(patches)} patches are noticed by their tests")
    return int(unnoticed > 0)


def copied(target: Path) -> Path:
    """Copy what tests need to a new folder, where melcap.kernels is importable, and return it."""
    for name in COPIED:
        shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns(*LEFT_OUT))
    for name in FILES:
        shutil.copy2(ROOT / name, target / name)
    (target / "melcap" / "kernels").symlink_to("../kernels")
    return target


def outcome(patch: Path, copies: SimpleQueue[Path]) -> str:
    """Return what is wrong with a patch, or nothing where its tests fail as they must."""
    tests = re.findall(r"^Test: (\S+)$", patch.read_text(encoding="utf-8"), re.MULTILINE)
    if not tests:
        return "NAMES NO TEST"
    with taken(copies) as copy:
        if failing(copy, tests):
            return "TESTS FAIL WITHOUT THE PATCH"
        if not applied(copy, patch):
            return "DOES NOT APPLY"
        try:
            status = failing(copy, tests)
        except subprocess.TimeoutExpired:
            return ""  # the broken code does not end, which nobody overlooks
        finally:
            if not applied(copy, patch, "--reverse"):
                raise RuntimeError(f"{patch} cannot be undone in {copy}")
    if -status in (signal.SIGABRT, signal.SIGBUS, signal.SIGSEGV):
        return ""  # memory out of bounds ends the interpreter, which nobody overlooks
    return {0: "NOT NOTICED", 1: ""}.get(status, f"PYTEST ENDED WITH {status}")


@contextmanager
def taken(copies: SimpleQueue[Path]) -> Iterator[Path]:
    """Take a copy out of the queue for a block."""
    copy = copies.get()
    try:
        yield copy
    finally:
        copies.put(copy)


def applied(copy: Path, patch: Path, *options: str) -> bool:
    """Apply a patch to the copy and return whether all of it fitted."""
    # Without a repository above it, git takes paths from the folder that it runs in.
    environment = {**os.environ, "GIT_CEILING_DIRECTORIES": str(copy.parent)}
    command = ["git", "apply", *options, str(patch)]
    return subprocess.run(command, cwd=copy, env=environment, capture_output=True).returncode == 0


def failing(copy: Path, tests: Sequence[str]) -> int:
    """Run tests in the copy and return pytest's exit status."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(copy),
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
        "TRITON_INTERPRET": "1",
    }
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, timeout=SECONDS)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
