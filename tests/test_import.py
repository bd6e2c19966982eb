"""Importing melcap and its public names imports no optional package and takes under 2 s."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

PROBE = """
import json, sys, time
import torch
before = set(sys.modules)
modules = {}
begin = time.perf_counter()
import melcap
missing = [name for name in melcap.__all__ if not hasattr(melcap, name)]
seconds = time.perf_counter() - begin
modules["public names"] = [*sys.modules]
import melcap.plot.spectrogram
modules["plot"] = [*sys.modules]
import melcap.evaluation.report
modules["evaluation"] = [*sys.modules]
import melcap.training.run
modules["training"] = [*sys.modules]
codec = melcap.load()
modules["load"] = [*sys.modules]
codec.decode(codec.encode(torch.zeros(1, 9000), 48000))
modules["coding"] = [*sys.modules]
json.dump({
    "seconds": seconds,
    "before": [*before],
    "cuda": torch.cuda.is_initialized(),
    "missing": missing,
    "modules": modules,
}, sys.stdout)
"""
"""Imports and uses more and more, and tells the modules after each step."""


def python(*arguments: str) -> str:
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


@pytest.fixture(scope="module")
def probed() -> dict[str, Any]:
    """Return what a process tells in which nothing warns."""
    found: dict[str, Any] = json.loads(python("-W", "error", "-c", PROBE))
    return found


def test_import_is_light(probed: dict[str, Any]) -> None:
    """All public names together import no heavy package that torch does not import."""
    new = {*probed["modules"]["public names"]} - {*probed["before"]}
    heavy = {"triton", "matplotlib", "soundfile", "soxr", "av", "scipy", "typer", "rich", "visqol"}
    assert heavy.isdisjoint(name.partition(".")[0] for name in new)
    assert not any(name.startswith("melcap.kernels") for name in new)
    assert not probed["cuda"]
    assert probed["missing"] == []
    assert probed["seconds"] < 2  # a promise to users, with a wide margin


@pytest.mark.parametrize(
    ("step", "absent"),
    [
        ("plot", "triton matplotlib"),
        (
            "evaluation",
            "av soxr soundfile scipy visqol pystoi pesq onnxruntime pycodec2 matplotlib triton",
        ),
        ("training", "tensorboard matplotlib"),
        ("load", "huggingface_hub transformers"),
        # PyTorch's compiler and SymPy would add seconds to each run of the command line.
        ("coding", "sympy torch._dynamo triton"),
    ],
)
def test_what_is_not_needed_is_not_imported(probed: dict[str, Any], step: str, absent: str) -> None:
    """Modules that draw, measure and train import nothing optional, nor does coding a clip."""
    assert {*absent.split()}.isdisjoint(probed["modules"][step])


def test_reading_audio_imports_no_torch() -> None:
    """There are many reading processes, so `melcap.bulk.reading` must start fast and be small."""
    code = "import sys, melcap.bulk.reading.pool, melcap.audio; print('torch' in sys.modules)"
    assert python("-c", code) == "False\n"
