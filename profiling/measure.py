"""What the GPU benchmarks share: timing, the device's own ceilings, provenance."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date

import torch
import triton
from machine import commit
from torch import Tensor
from triton.testing import do_bench, do_bench_cudagraph

import melcap

ROUNDS = 5


@dataclass(frozen=True)
class Timing:
    """Milliseconds of one call: median and quartiles over rounds, and replayed from a graph.

    Between the calls that are timed one by one the cache is flushed; in a graph it stays warm.
    `graph` is None where the work cannot be captured.
    """

    median: float
    low: float
    high: float
    graph: float | None


def timed(contenders: Mapping[str, Callable[[], object]]) -> dict[str, Timing]:
    """Time contenders in turns, so that a drift of the clock meets them all alike."""
    rounds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(ROUNDS):
        for name, call in contenders.items():
            rounds[name].append(do_bench(call, warmup=5, rep=20, return_mode="median"))
    found = {}
    for name, call in contenders.items():
        low, middle, high = statistics.quantiles(rounds[name], n=4)
        found[name] = Timing(middle, low, high, _graphed(call))
    return found


def _graphed(call: Callable[[], object]) -> float | None:
    try:
        return do_bench_cudagraph(call, rep=20, return_mode="median")
    except RuntimeError:
        torch.cuda.synchronize()
        return None


def ceilings() -> dict[str, float]:
    """Bytes a second of a copy (read and written), and FLOP a second of matrix products."""
    block: Tensor = torch.empty(2**28, dtype=torch.float32, device="cuda").normal_()
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


def provenance() -> dict[str, str]:
    """Card, versions, commit and date: every row carries them."""
    return {
        "gpu": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "melcap": melcap.__version__,
        "commit": commit(),
        "date": date.today().isoformat(),
    }


def largest_error(found: Tensor, expected: Tensor) -> tuple[float, list[int]]:
    """The largest difference and its index; NaN counts as infinitely wrong."""
    error = (found.double() - expected.to(found.device).double()).abs().nan_to_num(torch.inf)
    place = torch.unravel_index(error.argmax(), error.shape)
    return float(error.max()), [int(index) for index in place]
