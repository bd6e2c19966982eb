"""Each operation on both backends, side by side, on the calls that a codec makes."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from melcap.audio_codec import AudioCodec
from melcap.errors import BackendError
from melcap.ops import use_backend
from melcap.ops.library import run_exactly
from melcap.ops.registry import OPERATIONS, implementation, register, unavailable

ROUNDS = 5
CONDITION = 4.0
"""A kernel may be so many times further from float64 than PyTorch's operations in float32 are.
This matters where rounding is amplified, as many Griffin-Lim steps do, and no tolerance is met."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Timing:
    """Milliseconds of one call.

    Attributes:
        median: of the rounds. Before each call the cache is flushed.
        low: the first quartile.
        high: the third quartile.
        graph: of the call in a CUDA graph, with a warm cache; None where it cannot be captured.
    """

    median: float
    low: float
    high: float
    graph: float | None


@dataclass
class Call:
    """A call of an operation, with the arguments that a codec gave it.

    Attributes:
        operation: the name of the operation.
        arguments: the arguments, as implementations take them.
        count: how many calls were alike: the same shapes, dtypes and numbers.
    """

    operation: str
    arguments: tuple[Any, ...]
    count: int = 0

    @property
    def shape(self) -> str:
        """Return the shape of the first argument, such as 1 x 32 x 48 x 437."""
        return " x ".join(map(str, self.arguments[0].shape))

    def on(self, backend: str) -> Tensor:
        """Run the call on a backend."""
        with use_backend(backend):
            return run_exactly(self.operation, *self.arguments)

    def in_float64(self) -> Tensor:
        """Return the reference: PyTorch's operations in float64."""
        with use_backend("torch"):
            return run_exactly(self.operation, *map(_in_float64, self.arguments))


def calls_of(codec: AudioCodec, wave: Tensor) -> list[Call]:
    """Return the calls of operations by which a codec encodes and decodes a wave [samples]."""
    with torch.no_grad(), use_backend("torch"), _recording() as calls:
        codec.decode(codec.encode(wave, codec.sample_rate))
    return list(calls.values())


@contextmanager
def _recording() -> Iterator[dict[object, Call]]:
    """Collect the calls that run on the backend torch in the block, those that are alike as one.

    Operations that a reference calls in its turn are parts of it, and not collected.
    """
    calls: dict[object, Call] = {}
    inside = False

    def recorded(operation: str, run: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def record(*arguments: Any) -> Tensor:
            nonlocal inside
            if inside:
                return run(*arguments)
            key = (operation, *map(_signature, arguments))
            calls.setdefault(key, Call(operation, arguments)).count += 1
            inside = True
            try:
                return run(*arguments)
            finally:
                inside = False

        return record

    before = {name: implementation(name, "torch") for name in OPERATIONS}
    for name, found in before.items():
        register(name, "torch", replace(found, run=recorded(name, found.run)))
    try:
        yield calls
    finally:
        for name, found in before.items():
            register(name, "torch", found)


def reasons_against_timing(device: str) -> list[str]:
    """Return every reason why kernels cannot be timed on a device; [] if they can."""
    reasons = unavailable("triton")
    if not reasons and os.environ.get("TRITON_INTERPRET") == "1":
        reasons.append("TRITON_INTERPRET=1 interprets the kernels, whose times then mean nothing")
    if not reasons and device == "cpu":
        reasons.append("kernels run on CUDA devices: --device cuda")
    return reasons


def compare(codec: AudioCodec, wave: Tensor) -> list[Row]:
    """Check and time every operation that a codec uses, on both backends.

    Args:
        codec: a codec on a CUDA device.
        wave: [samples] at the codec's rate, on any device.

    Returns:
        A row for each operation and shape, with the error of the kernel, the error that is allowed,
        and milliseconds. A kernel that is wrong or cannot run has the sentence `why` and no times;
        so has an operation that the codec does not use.

    Raises:
        BackendError: kernels cannot be timed here, with every reason.
    """
    if reasons := reasons_against_timing(codec.device.type):
        raise BackendError(f"kernels cannot be timed here: {'; '.join(reasons)}")
    calls = calls_of(codec, wave)
    used = {call.operation for call in calls}
    rows = [_row(call) for name in OPERATIONS for call in calls if call.operation == name]
    why = "no layer of these weights uses it"
    return rows + [{"operation": name, "why": why} for name in OPERATIONS if name not in used]


def _row(call: Call) -> Row:
    row: Row = {"operation": call.operation, "shape": call.shape, "calls": call.count}
    try:
        error, allowed = check(call)
    except BackendError as reason:
        return row | {"why": str(reason)}
    row |= {"error": error, "allowed": allowed}
    if error > allowed:
        return row | {"why": "the kernel is wrong, and is not timed"}
    timings = timed({name: partial(call.on, name) for name in ("triton", "torch")})
    for name, timing in timings.items():
        row[name] = asdict(timing)
    return row | {"speedup": timings["torch"].median / timings["triton"].median}


def check(call: Call) -> tuple[float, float]:
    """Return the largest error of a kernel against float64, and the error that is allowed.

    Raises:
        BackendError: the kernel cannot run on these arguments, with every reason.
    """
    found, plain, expected = call.on("triton"), call.on("torch"), call.in_float64()
    if call.operation == "nearest_code":  # entries that are equally near are all right
        x, codebook = call.arguments
        found, plain, expected = (
            squared_distances(x, codebook, codes) for codes in (found, plain, expected)
        )
    error, _ = largest_error(found, expected)
    ordinary, _ = largest_error(plain, expected)
    return error, max(
        allowed_error(call.operation, call.arguments[0].dtype, expected), CONDITION * ordinary
    )


def allowed_error(operation: str, dtype: torch.dtype, expected: Tensor) -> float:
    """Return the largest error that a kernel may have where this is the right result."""
    tolerance = implementation(operation, "triton").tolerances[dtype]
    return tolerance.atol + tolerance.rtol * float(expected.abs().max())


def largest_error(found: Tensor, expected: Tensor) -> tuple[float, list[int]]:
    """Return the largest difference and its index; NaN counts as infinitely wrong."""
    error = (found.double() - expected.to(found.device).double()).abs()
    error = error.nan_to_num(torch.inf, torch.inf)
    place = torch.unravel_index(error.argmax(), error.shape)
    return float(error.max()), [int(index) for index in place]


def squared_distances(x: Tensor, codebook: Tensor, codes: Tensor) -> Tensor:
    """Return the squared distances of rows to the entries that were found for them, in float64."""
    return (x.double() - codebook.double()[codes.long()]).square().sum(1)


def timed(contenders: Mapping[str, Callable[[], object]]) -> dict[str, Timing]:
    """Time contenders on a GPU in turns, so that a drift of its clock affects all alike."""
    from triton.testing import do_bench

    rounds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(ROUNDS):
        for name, call in contenders.items():
            rounds[name].append(do_bench(call, warmup=5, rep=20, return_mode="median"))
    found = {}
    for name, call in contenders.items():
        low, middle, high = statistics.quantiles(rounds[name], n=4)
        found[name] = Timing(middle, low, high, _in_a_graph(call))
    return found


def _in_a_graph(call: Callable[[], object]) -> float | None:
    from triton.testing import do_bench_cudagraph

    try:
        return float(do_bench_cudagraph(call, rep=20, return_mode="median"))
    except RuntimeError:
        torch.cuda.synchronize()
        return None


def _in_float64(argument: Any) -> Any:
    floating = isinstance(argument, Tensor) and argument.is_floating_point()
    return argument.double() if floating else argument


def _signature(argument: Any) -> object:
    if isinstance(argument, Tensor):
        return argument.dtype, tuple(argument.shape)
    return str(argument)
