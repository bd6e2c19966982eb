"""Settings and fixtures that all tests share."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pytest
from hypothesis import settings

from tests import interpreter

if TYPE_CHECKING:
    from melcap.codec import Codec
    from melcap.evaluation.measures.signals import Wave

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)

# One thread for each xdist worker, and for the processes it starts: set before torch is imported.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# Triton reads it as kernels are defined. `make gpu` says 0 and runs them on the device instead.
os.environ.setdefault("TRITON_INTERPRET", "1")
interpreter.patch_once()

# No deadline: a first call may compile or load weights. CI draws the same examples each time.
settings.register_profile("melcap", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("melcap")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option of `make check`."""
    parser.addoption(
        "--quick",
        action="store_true",
        help="no slow tests, one or two cases of each test, five examples of each property",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Tell `tests.helpers.examples`, which modules call as they are imported, of --quick."""
    if config.getoption("--quick"):
        os.environ["MELCAP_TESTS"] = "quick"


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Seed torch before the fixtures of a test, so that its weights depend on no test before it."""
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out of the quick part what takes seconds to import, all of which is marked slow."""
    slow = config.getoption("--quick") and collection_path.name in ("test_ray.py", "test_onnx.py")
    return True if slow else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out of the quick part what is marked slow, and cases between the first and the last.

    A test of a kernel keeps its first case alone, as Triton's interpreter is slow.
    """
    if not config.getoption("--quick"):
        return
    cases: dict[str, list[pytest.Item]] = {}
    for item in items:
        if not item.get_closest_marker("slow"):
            cases.setdefault(item.nodeid.partition("[")[0], []).append(item)
    kept = {
        case
        for name, found in cases.items()
        for case in ((found[0],) if "tests/kernels/" in name else (found[0], found[-1]))
    }
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = [item for item in items if item in kept]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skip for a missing package into a failure in CI."""
    return _complete((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Turn a module that is skipped for a missing package into an error in CI."""
    return _complete((yield))


def _complete(report: Report) -> Report:
    if "CI" in os.environ and report.skipped and isinstance(report.longrepr, tuple):
        reason = report.longrepr[2].removeprefix("Skipped: ")
        if reason.startswith(("could not import", "needs pip install")):
            report.outcome = "failed"
            report.longrepr = f"CI installs every extra, and this is skipped: {reason}"
    return report


@pytest.fixture(scope="module")
def profiling_scripts() -> Iterator[None]:
    """Let a module import the scripts in profiling/, which import each other by name.

    transformers looks for a package called kernels, and would find another one in this folder.
    """
    folder = str(Path(__file__).parents[1] / "profiling")
    sys.path.insert(0, folder)
    other = sys.modules.pop("kernels", None)
    yield
    sys.path.remove(folder)
    sys.modules.pop("kernels", None)
    if other is not None:
        sys.modules["kernels"] = other


@pytest.fixture
def poisoned_memory() -> Iterator[None]:
    """Fill memory that operations allocate and do not write with NaN or the largest integer."""
    import torch

    torch.use_deterministic_algorithms(True)
    assert torch.utils.deterministic.fill_uninitialized_memory
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="session")
def small_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the weights file of a small codec with random weights."""
    from tests.helpers import SMALL, save_drawn

    return save_drawn(SMALL, tmp_path_factory.mktemp("weights") / "small.safetensors")


@pytest.fixture(scope="session")
def codec(small_weights: Path) -> Codec:
    """Return a small codec with random weights; tests must not change it."""
    import melcap

    return melcap.load(small_weights)


@pytest.fixture(scope="session")
def lite() -> Codec:
    """Return the codec with the weights that ship; tests must not change it."""
    import melcap

    return melcap.load()


@pytest.fixture(scope="session")
def speech() -> Wave:
    return _clip("speech")


@pytest.fixture(scope="session")
def music() -> Wave:
    return _clip("music")


def _clip(name: str) -> Wave:
    """Return 3 s of tests/data, [samples] at 44.1 kHz."""
    from melcap import audio

    return audio.read(Path(__file__).parent / "data" / f"{name}.flac")[0][0]
