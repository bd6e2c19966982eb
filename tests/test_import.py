"""Importing melcap and its public names imports no optional package and takes under 2 s."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = ("triton", "matplotlib", "soundfile", "soxr", "av", "scipy", "typer", "rich", "visqol")

PROBE = f"""
import json, sys, time
import torch
before = set(sys.modules)
begin = time.perf_counter()
import melcap
missing = [name for name in melcap.__all__ if not hasattr(melcap, name)]
seconds = time.perf_counter() - begin
new = {{name.partition(".")[0] for name in set(sys.modules) - before}}
kernels = [name for name in sys.modules if name.startswith("melcap.kernels")]
json.dump({{
    "seconds": seconds,
    "heavy": sorted(new & set({HEAVY!r})),
    "kernels": kernels,
    "cuda": torch.cuda.is_initialized(),
    "missing": missing,
}}, sys.stdout)
"""


def python(*arguments: str) -> str:
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


@pytest.mark.slow
def test_import_is_light() -> None:
    """All public names together import no heavy package that torch does not import."""
    found = json.loads(python("-c", PROBE))
    assert found["heavy"] == []
    assert found["kernels"] == []
    assert not found["cuda"]
    assert found["missing"] == []
    assert found["seconds"] < 2  # a promise to users, with a wide margin


def test_a_fresh_process_imports_neither_triton_nor_matplotlib() -> None:
    names = json.loads(python("-c", "import json, sys, melcap; print(json.dumps([*sys.modules]))"))
    assert {"triton", "matplotlib"}.isdisjoint(names)
    assert "melcap" in names


def test_import_warns_of_nothing() -> None:
    assert python("-W", "error", "-c", "import melcap") == ""


def test_reading_audio_imports_no_torch() -> None:
    """There are many reading processes, so `melcap.bulk.reading` must start fast and be small."""
    code = "import sys, melcap.bulk.reading.pool, melcap.audio; print('torch' in sys.modules)"
    assert python("-c", code) == "False\n"
