"""Write down what a pass should take on a GPU, from its launches alone, before one is at hand.

    TRITON_INTERPRET=1 python profiling/estimate.py        # writes profiling/results/estimate.md

Encode and decode run on a CPU without computing anything: each launch of a kernel and each
operation of PyTorch is recorded with its shapes. The time of one is the largest of four: its bytes
of memory, its bytes of cache, its products, and a launch with the steps that a program takes one
after the other. Rates are those that an H200 was measured to reach (`CEILINGS`), times the share
of them that a good kernel reaches (`REACHED`). The estimate is to be compared with
`profiling/results/device-time-cuda.md` when a device has been used.
"""

from __future__ import annotations

import math
import os
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any
from unittest import mock

import torch
import typer
from machine import commit
from paths import RESULTS
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import melcap
from melcap.markdown import table
from melcap.model import griffin_lim, layers
from melcap.model.griffin_lim import ByFrame

CEILINGS = {"memory": 4.25e12, "cache": 5.5e12, "float32": 51e12, "tf32": 356e12, "half": 663e12}
"""Bytes and FLOP a second of an NVIDIA H200: measured, but for the cache, which is assumed."""
REACHED = {"memory": 0.8, "cache": 0.7, "float32": 0.5, "tf32": 0.5, "half": 0.5}
"""The share of a ceiling that a good kernel reaches: memory measured, the others assumed."""
SLOWER = 2.0
"""The factor by which every launch is slower than assumed, in the cautious column."""
LAUNCH = 2.5e-6
"""Seconds that a launch in a CUDA graph takes at least: assumed."""
PRODUCT_STEP, FRAME_STEP = 0.4e-6, 1.5e-6
"""Seconds of a step of a product, and of a frame with its transforms, in one program: assumed."""
PROGRAMS = 264
"""Programs that run at once: two on each multiprocessor of an H200."""
SHAPES = ((64, 10.0), (1, 10.0), (1, 1.0))
VIEWS = frozenset(
    (
        "_unsafe_view", "alias", "as_strided", "chunk", "detach", "empty", "expand", "lift_fresh",
        "new_empty", "permute", "promote_types", "select", "slice", "split", "split_with_sizes",
        "squeeze", "t", "tensor_split", "transpose", "unbind", "unfold", "unsqueeze", "view",
    )
)  # fmt: skip
"""Operations of PyTorch that move nothing."""


@dataclass(frozen=True)
class Cost:
    """The needs of one launch.

    Attributes:
        memory: bytes of memory, each tensor once.
        cache: bytes that its programs read and write.
        products: FLOP of each kind of unit.
        serial: seconds that the steps of a program take one after the other.
    """

    memory: float
    cache: float = 0.0
    products: tuple[tuple[str, float], ...] = ()
    serial: float = 0.0

    def seconds(self, slower: float = 1.0) -> float:
        """Return the seconds of the launch, where every rate is so many times slower."""
        needs = [("memory", self.memory), ("cache", self.cache), *self.products]
        busy = max(need / CEILINGS[name] / REACHED[name] for name, need in needs)
        return slower * max(LAUNCH + self.serial, busy)


class Recorder(TorchDispatchMode):
    """A mode that notes the cost of each operation of PyTorch, and of launches that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.costs: dict[str, list[Cost]] = defaultdict(list)
        self.paused = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        name = func.name().removeprefix("aten::")
        kind = name.partition(".")[0]
        if not self.paused and kind not in VIEWS and not kind.startswith("melcap"):
            read = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
            written = [leaf for leaf in tree_leaves(made) if isinstance(leaf, Tensor)]
            moved = sum(_bytes(tensor) for tensor in [*read, *written])
            self.costs[f"PyTorch: {name}"].append(Cost(moved, products=_products(name, args, made)))
        return made

    def launched(self, launch: Any) -> None:
        """Note a launch of a kernel, in place of running it."""
        self.costs[launch.name].append(cost_of(launch))

    @contextmanager
    def not_counted(self) -> Iterator[None]:
        """Leave out what PyTorch computes in the block: tables of weights, which are kept."""
        self.paused += 1
        try:
            yield
        finally:
            self.paused -= 1


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _products(name: str, args: Any, made: Any) -> tuple[tuple[str, float], ...]:
    if name.startswith(("mm", "addmm", "bmm")):
        first = args[1] if name.startswith("addmm") else args[0]
        return (("float32", 2.0 * made.numel() * first.shape[-1]),)
    if name.startswith("convolution"):
        return (("float32", 2.0 * made.numel() * args[1][0].numel()),)
    if name.startswith("_fft"):
        points = made.shape[-1]
        return (("float32", 2.5 * made.numel() * math.log2(points)),)
    return ()


def cost_of(launch: Any) -> Cost:
    """Return the cost of a launch of one of our kernels."""
    moved = sum(_bytes(v) for v in launch.arguments.values() if isinstance(v, Tensor))
    return PRODUCTS.get(launch.name, lambda *_: Cost(moved))(launch, moved)


def _conv2d(launch: Any, moved: float) -> Cost:
    """Return the cost of tiles, of which each reads its input and weights for each product."""
    c, programs = launch.constants, launch.grid[0]
    kind = "tf32" if launch.arguments["x_low"] is None else "half"
    depth = launch.arguments["products"] * c["DEPTH"]
    tile = c["POSITIONS"] * c["TILE"]
    read = 4 * depth * (c["POSITIONS"] + c["TILE"] * (1 if kind == "half" else 2))
    products = ((kind, 3 * 2.0 * programs * tile * depth),)
    waves = math.ceil(programs / PROGRAMS)
    serial = waves * launch.arguments["products"] * PRODUCT_STEP
    return Cost(moved, programs * (read + 8 * tile), products, serial)


def _frames(transforms: int) -> Callable[[Any, float], Cost]:
    """Return a function that gives the cost of frames with so many Fourier transforms each."""

    def cost(launch: Any, moved: float) -> Cost:
        points = launch.constants["N_FFT"]
        each = next(v for k, v in launch.arguments.items() if k.endswith("_each"))
        flops = transforms * 2.5 * points * math.log2(points) * 1.3  # windows and bins besides
        waves = math.ceil(launch.grid[0] / (4 * PROGRAMS))
        products = (("float32", launch.grid[0] * each * flops),)
        return Cost(moved, products=products, serial=waves * each * FRAME_STEP)

    return cost


def _nominate(launch: Any, moved: float) -> Cost:
    """Return the cost of scores: 0.95 ms were measured for 165,391 rows and 8192 codes."""
    codes = launch.arguments["tiles"] * launch.constants["CODES"]
    return Cost(moved, products=(("float32", 18.0 * launch.arguments["rows"] * codes),))


PRODUCTS: dict[str, Callable[[Any, float], Cost]] = {
    "conv2d_kernel": _conv2d,
    "nominate": _nominate,
    "log_mel_kernel": _frames(1),
    "polar_istft_kernel": _frames(1),
    "griffin_lim_step": _frames(2),
}
"""Functions that give the cost of a launch where bytes are not all."""


@contextmanager
def recording() -> Iterator[Recorder]:
    """Record everything that runs in the block, with launches that do nothing."""
    from melcap.kernels import launch, weight_cache
    from melcap.kernels.aot import SHARED_LIMIT

    recorder = Recorder()
    run, shared, build = launch.run, launch.shared_memory, weight_cache.remembered

    def remembered(source: Tensor, kind: Any, make: Callable[[], Any], *others: Any) -> Any:
        with recorder.not_counted():
            return build(source, kind, make, *others)

    with ExitStack() as stack:
        modules = [m for name, m in sys.modules.items() if name.startswith("melcap.kernels")]
        for module in modules:
            if getattr(module, "run", None) is run:
                stack.enter_context(mock.patch.object(module, "run", recorder.launched))
            if getattr(module, "shared_memory", None) is shared:
                stack.enter_context(
                    mock.patch.object(module, "shared_memory", return_value=SHARED_LIMIT["sm_90"])
                )
            if getattr(module, "remembered", None) is build:
                stack.enter_context(mock.patch.object(module, "remembered", remembered))
        # What a GPU does: all frames at once, all steps in one call, Haar as convolutions.
        stack.enter_context(mock.patch.object(ByFrame, "in_tiles", lambda self, x: self.frames(x)))
        stack.enter_context(mock.patch.object(griffin_lim, "STEPS_OF_A_TILE", 10**9))
        stack.enter_context(mock.patch.object(layers, "is_a_convolution", return_value=True))
        stack.enter_context(melcap.use_backend("triton"))
        stack.enter_context(torch.no_grad())
        stack.enter_context(recorder)
        yield recorder


def passes(batch: int, seconds: float) -> dict[str, Recorder]:
    """Return what encoding and decoding a batch of the codec that ships runs."""
    codec = melcap.load()
    codec.chunk_columns = 1 << 20  # as on a GPU, which computes a batch at once
    wave = torch.zeros(batch, round(seconds * codec.sample_rate))
    for _ in range(2):  # the first time tables are made, which are kept
        with recording() as encoding:
            codes = codec.encode(wave, codec.sample_rate)
        codes.tokens.zero_()  # nothing has written them
        with recording() as decoding:
            codec.decode(codes)
    return {"encode": encoding, "decode": decoding}


def report(shapes: tuple[tuple[int, float], ...]) -> str:
    """Return the page."""
    lines = [
        "# What an H200 should take",
        "",
        f"By `python profiling/estimate.py` at commit {commit()}, "
        f"{datetime.now(UTC).date().isoformat()}, on a CPU: estimated from the shapes of launches, "
        "not measured.",
        "",
        "Ceilings: " + ", ".join(f"{k} {v / 1e12:g} T/s" for k, v in CEILINGS.items()) + ". "
        "Reached: " + ", ".join(f"{k} {v:g}" for k, v in REACHED.items()) + ".",
        "",
    ]
    rows, details = [], []
    for batch, seconds in shapes:
        for way, recorder in passes(batch, seconds).items():
            spent = Counter({k: sum(c.seconds() for c in v) for k, v in recorder.costs.items()})
            total = sum(spent.values())
            count = sum(len(costs) for costs in recorder.costs.values())
            name = f"{way}, {batch} x {seconds:g} s"
            speeds = (f"{batch * seconds / total / slower:,.0f}" for slower in (1.0, SLOWER))
            rows.append((name, f"{total * 1e3:.2f}", count, *speeds))
            details += ["", f"{name}:", ""]
            details.append(
                table(
                    ("launches of", "ms", "launches", "GB", "GFLOP"),
                    [
                        (
                            f"`{kind}`",
                            f"{value * 1e3:.3f}",
                            len(recorder.costs[kind]),
                            f"{sum(c.memory for c in recorder.costs[kind]) / 1e9:.2f}",
                            f"{_flops(recorder.costs[kind]) / 1e9:.0f}",
                        )
                        for kind, value in spent.most_common(12)
                    ],
                )
            )
    slower = f"if all is {SLOWER:g} times slower"
    head = table(("pass", "ms", "launches", "times real time", slower), rows)
    return "\n".join([*lines, head, *details]) + "\n"


def _flops(costs: list[Cost]) -> float:
    return sum(flop for cost in costs for _, flop in cost.products)


def main(
    out: Annotated[Path, typer.Option(help="The page.")] = RESULTS / "estimate.md",
    small: Annotated[bool, typer.Option("--small", help="The shortest shape alone.")] = False,
) -> None:
    """Estimate, and write the page."""
    if os.environ.get("TRITON_INTERPRET") != "1":
        sys.exit("kernels take tensors of a CPU in the interpreter alone: set TRITON_INTERPRET=1")
    out.write_text(report(SHAPES[-1:] if small else SHAPES))
    print(out.read_text())


if __name__ == "__main__":
    typer.run(main)
