"""Importing melcap and its public names imports no optional package and takes under 2 s."""

from __future__ import annotations

import json
import subprocess
import sys

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
import melcap.plot.spectrogram
json.dump({{
    "seconds": seconds,
    "heavy": sorted(new & set({HEAVY!r})),
    "kernels": kernels,
    "cuda": torch.cuda.is_initialized(),
    "missing": missing,
    "modules": [*sys.modules],
}}, sys.stdout)
"""


def python(*arguments: str) -> str:
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_import_is_light() -> None:
    """All public names together import no heavy package that torch does not import.

    Neither they nor the module that draws import Triton or Matplotlib. Nothing warns.
    """
    found = json.loads(python("-W", "error", "-c", PROBE))
    assert found["heavy"] == []
    assert {"triton", "matplotlib"}.isdisjoint(found["modules"])
    assert found["kernels"] == []
    assert not found["cuda"]
    assert found["missing"] == []
    assert found["seconds"] < 2  # a promise to users, with a wide margin


def test_reading_audio_imports_no_torch() -> None:
    """There are many reading processes, so `melcap.bulk.reading` must start fast and be small."""
    code = "import sys, melcap.bulk.reading.pool, melcap.audio; print('torch' in sys.modules)"
    assert python("-c", code) == "False\n"


def test_coding_imports_no_compiler() -> None:
    """Loading the weights, encoding and decoding import neither PyTorch's compiler nor SymPy.

    These would add seconds to each run of the command line.
    """
    code = (
        "import json, sys, torch, melcap; codec = melcap.load();"
        "codec.decode(codec.encode(torch.zeros(1, 9000), 48000));"
        "print(json.dumps(sorted({'sympy', 'torch._dynamo', 'triton'} & sys.modules.keys())))"
    )
    assert json.loads(python("-c", code)) == []
