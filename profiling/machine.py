"""This machine: what it is, and the rates that a CPU reaches in products and convolutions."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
from collections.abc import Callable
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import perf_counter

import torch

import melcap

PACKAGES = ("torch", "triton", "onnxruntime", "transformers", "snac", "vocos")


def provenance(device: str) -> dict[str, str]:
    """Machine, versions, commit and date: every file of results carries them."""
    return {
        "machine": processor() if device == "cpu" else torch.cuda.get_device_name(device),
        "cores": str(os.cpu_count()),
        "load before": f"{os.getloadavg()[0]:.2f}",
        "python": platform.python_version(),
        **{name: found for name in PACKAGES if (found := _version(name))},
        "model": melcap.load().model,
        "commit": commit(),
        "date": date.today().isoformat(),
    }


def commit() -> str:
    """That of this tree; a copy without its history is told by MELCAP_COMMIT."""
    if told := os.environ.get("MELCAP_COMMIT"):
        return told
    here = Path(__file__).resolve().parent
    found = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=here, capture_output=True, text=True
    )
    return found.stdout.strip() or "unknown"


def processor() -> str:
    """The CPU's name, and of its extensions those that matter here."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    found = {key.strip(): value.strip() for key, _, value in (x.partition(":") for x in lines)}
    flags = found.get("flags", "").split()
    extensions = [x for x in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if x in flags]
    name = found.get("model name") or platform.processor() or platform.machine()
    return f"{name} ({', '.join(extensions)})" if extensions else name


def rates() -> dict[str, float]:
    """FLOP a second of float32, with as many threads as torch has: what a layer could reach.

    Products of a size that fits the caches well, and 3 x 3 convolutions as the tokenizer has them.
    """
    a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)
    x = torch.randn(1, 128, 24, 512).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(128, 128, 3, 3).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        product = _median(lambda: torch.mm(a, b))
        convolution = _median(lambda: torch.nn.functional.conv2d(x, weight, padding=1))
    return {
        "product": 2 * 1024**3 / product,
        "convolution": 2 * 128 * 128 * 9 * 24 * 512 / convolution,
    }


def _median(call: Callable[[], object], rounds: int = 25) -> float:
    taken = []
    for _ in range(rounds + 3):
        began = perf_counter()
        call()
        taken.append(perf_counter() - began)
    return statistics.median(taken[3:])


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
