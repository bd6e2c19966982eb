"""Settings and codecs that every test shares."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from melcap.codec import Codec
    from melcap.evaluation.measures.signals import Wave

# One thread for each xdist worker, and for the processes it starts: set before torch is imported.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# Triton reads it as kernels are defined. `make gpu` says 0 and runs them on the device instead.
os.environ.setdefault("TRITON_INTERPRET", "1")

# No deadline: a first call may compile or load weights. CI draws the same examples each time.
settings.register_profile("melcap", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("melcap")


@pytest.fixture(scope="module")
def profiling_scripts() -> Iterator[None]:
    """Let a module import the scripts of profiling/, as one that is run finds the others.

    transformers looks for a package of its own called kernels, and in this folder finds another.
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
    """Memory that an operation allocates and does not write holds NaN, or the largest integer."""
    import torch

    torch.use_deterministic_algorithms(True)
    assert torch.utils.deterministic.fill_uninitialized_memory
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="session")
def small_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights file of a small codec with random weights."""
    import torch

    from melcap.codec import Codec
    from melcap.pretrained import save
    from tests.helpers import SMALL, draw_weights

    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    with torch.random.fork_rng():  # fresh layers are drawn from the global generator
        torch.manual_seed(0)
        save(draw_weights(Codec(SMALL)), path)
    return path


@pytest.fixture(scope="session")
def codec(small_weights: Path) -> Codec:
    """A small codec with random weights; not to be changed."""
    import melcap

    return melcap.load(small_weights)


@pytest.fixture(scope="session")
def lite() -> Codec:
    """The default codec with the weights that ship; not to be changed."""
    import melcap

    return melcap.load()


@pytest.fixture(scope="session")
def speech() -> Wave:
    return _clip("speech")


@pytest.fixture(scope="session")
def music() -> Wave:
    return _clip("music")


def _clip(name: str) -> Wave:
    """[samples] at 44.1 kHz: 3 s of tests/data."""
    from melcap import audio

    return audio.read(Path(__file__).parent / "data" / f"{name}.flac")[0][0]
