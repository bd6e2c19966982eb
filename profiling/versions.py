"""This machine's versions, and the rates that it reaches: the ceilings of every other figure.

python profiling/versions.py --out profiling/results
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import torch
import typer
from machine import ceilings, provenance, rates

from melcap.ops import backend_report


def main(
    out: Annotated[Path, typer.Option(help="The folder for versions.json.")],
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cuda",
) -> None:
    """Write versions, the report of the backends, and ceilings to versions.json."""
    found = {"origin": provenance(device), "backends": backend_report()}
    if device == "cpu":
        found["ceilings"] = rates()
    else:
        properties = torch.cuda.get_device_properties(0)
        found["device"] = {
            "name": properties.name,
            "capability": f"{properties.major}.{properties.minor}",
            "multiprocessors": properties.multi_processor_count,
            "memory_gib": round(properties.total_memory / 2**30, 1),
            "cudnn": torch.backends.cudnn.version(),
            "cuda": torch.version.cuda,
        }
        found["ceilings"] = ceilings()
    out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(found, indent=1)
    (out / "versions.json").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    typer.run(main)
