"""This machine: its versions, and the rates that it reaches in products and convolutions."""

from __future__ import annotations

import os
import statistics
import subprocess
from collections.abc import Callable
from pathlib import Path

import torch

import melcap
from melcap.bench.origin import origin
from melcap.bench.speed import timed
from melcap.provenance import installed_version

PEERS = ("onnxruntime", "transformers", "snac", "vocos")
"""Packages whose versions results carry beside those of `melcap.bench.origin`."""


def provenance(device: str) -> dict[str, str]:
    """Return the machine, versions, commit and date, which every file of results carries."""
    peers = {name: found for name in PEERS if (found := installed_version(name))}
    return origin(device, melcap.load().model) | peers | {"commit": commit()}


def commit() -> str:
    """Return the commit of this tree; in a copy without history, what MELCAP_COMMIT says."""
    if told := os.environ.get("MELCAP_COMMIT"):
        return told
    here = Path(__file__).resolve().parent
    found = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=here, capture_output=True, text=True
    )
    return found.stdout.strip() or "unknown"


def rates() -> dict[str, float]:
    """Return FLOP a second of float32 on a CPU, with as many threads as torch has.

    The rates are upper bounds for a layer: products of a size that fits the caches well, and 3 x 3
    convolutions as the tokenizer has them.
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


def ceilings() -> dict[str, float]:
    """Return what this GPU reaches: bytes a second of a copy, and FLOP a second of products.

    A byte that is copied counts twice, read and written.
    """
    from triton.testing import do_bench

    block = torch.empty(2**28, dtype=torch.float32, device="cuda").normal_()
    target = torch.empty_like(block)
    copy = do_bench(lambda: target.copy_(block), return_mode="median")
    found = {"copy B/s": 2 * block.nbytes / copy * 1e3}
    before = torch.get_float32_matmul_precision()
    for name, dtype, precision in (
        ("float32 FLOP/s", torch.float32, "highest"),
        ("tf32 FLOP/s", torch.float32, "high"),
        ("float16 FLOP/s", torch.float16, "highest"),
    ):
        torch.set_float32_matmul_precision(precision)
        a = torch.randn(8192, 8192, device="cuda").to(dtype)
        taken = do_bench(lambda a=a: a @ a, return_mode="median")
        found[name] = 2 * 8192**3 / taken * 1e3
    torch.set_float32_matmul_precision(before)
    return found


def _median(call: Callable[[], object], rounds: int = 25) -> float:
    taken = [timed(call, "cpu")[0] for _ in range(rounds + 3)]
    return statistics.median(taken[3:])
