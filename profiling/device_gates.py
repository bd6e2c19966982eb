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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from machine import provenance
from torch import Tensor

import melcap
from melcap.bench.kernels import allowed_error, largest_error, squared_distances
from melcap.config import MelSpec
from melcap.io.files import replacing
from melcap.kernels.launch import interpreted, launched
from melcap.ops import (
    channel_norm,
    convnext1d,
    griffin_lim,
    log_mel,
    nearest_code,
    upsample_conv1d,
)

Gate = Callable[[], Tensor]
SINGLE, BRAIN = torch.float32, torch.bfloat16


class Draws:
    """A source of random tensors on a device, the same in every run."""

    def __init__(self, device: str) -> None:
        self.device = device
        self._generator = torch.Generator(device).manual_seed(0)

    def __call__(self, *shape: int, fan_in: int = 1, dtype: torch.dtype = SINGLE) -> Tensor:
        """Draw normal numbers with a variance of 1 / fan_in."""
        drawn = torch.randn(shape, device=self.device, generator=self._generator)
        return (drawn / fan_in**0.5).to(dtype)


def exact(*tensors: Tensor) -> list[Tensor]:
    """Return the tensors in float64."""
    return [tensor.double() for tensor in tensors]


def cases(draw: Draws, small: bool) -> Iterator[tuple[str, str, torch.dtype, Gate, Gate]]:
    """Yield (operation, case, dtype, on the backend in force, in float64), `channel_norm` first."""
    yield from _channel_norms(draw, small)
    for samples in (9001,) if small else (9001, 441_000):
        wave = 0.1 * draw(1 if small else 8, samples)
        yield (
            "log_mel",
            f"{len(wave)} x {samples}",
            SINGLE,
            lambda w=wave: log_mel(w, MelSpec()),
            lambda w=wave: log_mel(w.double(), MelSpec()),
        )
    for rows, codes in ((13, 300),) if small else ((13, 8192), (2584, 8192), (165_391, 8192)):
        x, codebook = draw(rows, 8), draw(codes, 8)
        yield (
            "nearest_code",
            f"{rows} x {codes} x 8",
            SINGLE,
            lambda x=x, c=codebook: squared_distances(x, c, nearest_code(x, c)),
            lambda x=x, c=codebook: _least_distances(x, c),
        )
    for dtype in (SINGLE,) if small else (SINGLE, torch.float16, BRAIN):
        width, hidden, steps = (16, 32, 20) if small else (256, 512, 1733)
        block = [
            draw(1 if small else 8, width, steps, dtype=dtype),
            draw(width, 1, 7, fan_in=7, dtype=dtype),
            *(draw(width, dtype=dtype) for _ in range(3)),
            draw(hidden, width, fan_in=width, dtype=dtype),
            draw(hidden, dtype=dtype),
            draw(width, hidden, fan_in=hidden, dtype=dtype),
            *(draw(width, dtype=dtype) for _ in range(2)),
        ]
        yield (
            "convnext1d",
            f"{width}/{hidden}, {len(block[0])} x {steps}",
            dtype,
            lambda b=block: convnext1d(*b),
            lambda b=block: convnext1d(*exact(*b)),
        )
    n_fft, hop, frames = (256, 64, 30) if small else (1024, 256, 1801)
    wave, lift = (
        draw(1 if small else 8, frames, hop),
        draw(1 if small else 8, frames, n_fft // 2 + 1),
    )
    moved = wave + 0.1 * draw(*wave.shape)
    x = torch.cat((wave, moved, (1 + lift.abs()) * (3 / 8 * n_fft) ** 0.5), dim=2)
    for steps in (1,) if small else (1, 4):
        yield (
            "griffin_lim",
            f"{n_fft}/{hop}, {steps} steps, {len(x)} x {frames}",
            SINGLE,
            lambda s=steps: griffin_lim(x, n_fft, hop, steps=s),
            lambda s=steps: griffin_lim(x.double(), n_fft, hop, steps=s),
        )
    into, out, stride, steps = (16, 8, 2, 30) if small else (256, 128, 4, 1723)
    layer = draw(2, into, steps), draw(into, out, 2 * stride, fan_in=2 * into), draw(out)
    alpha = draw(into).abs() + 0.5
    yield (
        "upsample_conv1d",
        f"{into} to {out}, x{stride}, 2 x {steps}",
        SINGLE,
        lambda: upsample_conv1d(*layer, stride, activation="snake", alpha=alpha),
        lambda: upsample_conv1d(*exact(*layer), stride, activation="snake", alpha=alpha.double()),
    )


def _channel_norms(draw: Draws, small: bool) -> Iterator[tuple[str, str, torch.dtype, Gate, Gate]]:
    """Yield forward and backward passes, at the tokenizer's widths and at a width of 51."""
    shapes = (
        ((2, 32, 3, 7), (1, 51, 2, 5))
        if small
        else ((8, 32, 48, 437), (8, 128, 12, 109), (3, 51, 7, 101))
    )
    for shape in shapes:
        for dtype in (SINGLE,) if small else (SINGLE, BRAIN):
            x = draw(*shape, dtype=dtype).contiguous(memory_format=torch.channels_last)
            upstream = draw(*shape, dtype=dtype).contiguous(memory_format=torch.channels_last)
            weight, bias = draw(shape[1]), draw(shape[1])
            name = " x ".join(map(str, shape))

            yield (
                "channel_norm",
                name,
                dtype,
                lambda x=x, w=weight, b=bias: channel_norm(x, w, b, activation="silu"),
                lambda x=x, w=weight, b=bias: channel_norm(*exact(x, w, b), activation="silu"),
            )
            yield (
                "channel_norm",
                f"{name}, gradients",
                dtype,
                lambda x=x, w=weight, b=bias, u=upstream: _gradients(u, x, w, b),
                lambda x=x, w=weight, b=bias, u=upstream: _gradients(*exact(u, x, w, b)),
            )


def _gradients(upstream: Tensor, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return the gradients of input, weight and bias in one row.

    Those of weight and bias are sums over all positions. They are divided by the number of
    positions, so that one tolerance fits all.
    """
    of_x, of_weight, of_bias = torch.ops.melcap.channel_norm_gradient(
        upstream, x, weight, bias, "silu"
    )
    positions = x.numel() // x.shape[1]
    return torch.cat(
        [of_x.flatten().double(), of_weight.double() / positions, of_bias.double() / positions]
    )


def _least_distances(x: Tensor, codebook: Tensor) -> Tensor:
    """Return the squared distances to the nearest entries: of two that tie, either is right."""
    book = codebook.double()
    return torch.cat(
        [(part.double()[:, None] - book).square().sum(2).amin(1) for part in x.split(1024)]
    )


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
