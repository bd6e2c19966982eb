"""`import melcap` is light: it imports no optional package, starts no GPU, and takes under 2 s."""

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
seconds = time.perf_counter() - begin
new = {{name.partition(".")[0] for name in set(sys.modules) - before}}
kernels = [name for name in sys.modules if name.startswith("melcap.kernels")]
json.dump({{
    "seconds": seconds,
    "heavy": sorted(new & set({HEAVY!r})),
    "kernels": kernels,
    "cuda": torch.cuda.is_initialized(),
    "missing": [name for name in melcap.__all__ if not hasattr(melcap, name)],
}}, sys.stdout)
"""


def python(*arguments: str) -> str:
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


@pytest.mark.slow
def test_import_is_light() -> None:
    """Importing melcap adds no heavy package to those of torch."""
    found = json.loads(python("-c", PROBE))
    assert found["heavy"] == []
    assert found["kernels"] == []
    assert not found["cuda"]
    assert found["missing"] == []
    # a promise to users, and the one time that a test here asserts
    assert found["seconds"] < 2


def test_a_fresh_process_holds_none_of_them() -> None:
    names = json.loads(python("-c", "import json, sys, melcap; print(json.dumps([*sys.modules]))"))
    assert {"triton", "matplotlib"}.isdisjoint(names)
    assert "melcap" in names


def test_import_warns_of_nothing() -> None:
    assert python("-W", "error", "-c", "import melcap") == ""


def test_what_reads_audio_needs_no_torch() -> None:
    """Reading processes are many: `melcap.bulk.reading` must start fast and be small."""
    code = "import sys, melcap.bulk.reading.pool, melcap.audio; print('torch' in sys.modules)"
    assert python("-c", code) == "False\n"
