"""Compare every kernel with float64 on this device, before anything is timed.

    python profiling/device_gates.py --out profiling/results

Each operation runs at the sizes of the codec and of its training, and at awkward sizes, into memory
that holds NaN. An operation fails if its result is outside its tolerance, if it does not
launch its kernel or if it raises an error. device-gates.json lists it under "failed", and
`gpu_budget.py` switches its kernel off for the phases that follow. With TRITON_INTERPRET=1, smaller
cases run in Triton's interpreter.
"""

from __future__ import annotations

import json
import sys
import traceback
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from gate_cases import Draws, Gate, cases
from machine import provenance

import melcap
from melcap.bench.kernels import allowed_error, largest_error
from melcap.io.files import replacing
from melcap.kernels.launch import interpreted, launched


def compare(operation: str, dtype: torch.dtype, found: Gate, expected: Gate) -> dict[str, Any]:
    """Return the largest error, where it is, what is allowed, and whether the gate is passed."""
    before = sum(launched.values())
    with melcap.use_backend("triton"):
        made = found()
    ran = sum(launched.values()) - before
    with melcap.use_backend("torch"):
        truth = expected().to(made.device)
    error, place = largest_error(made, truth)
    allowed = allowed_error(operation, dtype, truth)
    return {
        "error": error,
        "at": place,
        "allowed": allowed,
        "launches": ran,
        "passed": error <= allowed and ran > 0,
    }


def main(
    out: Annotated[Path, typer.Option(help="The folder for device-gates.json.")],
    device: Annotated[str, typer.Option(help="cuda, or cpu with TRITON_INTERPRET=1.")] = "cuda",
) -> None:
    """Compare every kernel with float64; the file is written anew after every case."""
    small = interpreted()
    # Memory that a kernel forgets to write holds NaN.
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    out.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {"origin": provenance(device), "failed": [], "rows": []}
    for operation, case, dtype, ours, truth in cases(Draws(device), small):
        row: dict[str, Any] = {"operation": operation, "case": case, "dtype": str(dtype)[6:]}
        try:
            row |= compare(operation, dtype, ours, truth)
        except Exception as error:  # a kernel may fail in any way, and the others must be tried
            traceback.print_exc()
            row |= {"passed": False, "reason": f"{type(error).__name__}: {error}"[:500]}
        if not row["passed"] and operation not in found["failed"]:
            found["failed"].append(operation)
        found["rows"].append(row)
        print({name: value for name, value in row.items() if name != "at"}, flush=True)
        with replacing(out / "device-gates.json") as temporary:
            temporary.write_text(json.dumps(found, indent=1) + "\n")
        if device == "cuda":
            torch.cuda.empty_cache()
    if found["failed"]:
        sys.exit(f"failed: {', '.join(found['failed'])}")
    print("all gates passed")


if __name__ == "__main__":
    typer.run(main)
