"""channel_norm on Triton, forward and backward: a tile of positions with all their channels.

A layer norm over few channels has nothing to share between positions. A tile is read once, mean,
variance and activation stay in registers, and the result is written once. Layer norms of libraries
are made for long rows, with a block of threads for each; lite has millions of rows of 32 to 128
channels. The backward pass reads input and upstream gradient, computes mean, variance and
activation again, and writes one tensor. A fixed number of programs sums up the gradients of weight
and bias, and these sums are added in a fixed order, so that the gradients are the same every time.

Traffic for each number: forward one read and one write, backward two reads and one write, of the
input's dtype. The plain chain with SiLU reads and writes twice forward. Under autocast, on
bfloat16, it moves 28 bytes (cast, norm and SiLU in float32, cast) where this kernel moves 4.

Mean and variance are computed in float32, in two passes over registers, and only the result is
rounded. The error against float64 is that of an input rounded to float32: at most 6e-8 of the
largest channel, magnified by 1 / deviation.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from melcap.ops.numerics import EPSILON
from melcap.ops.registry import Implementation, Tolerance, register

from .activations import activate
from .launch import Launch, interpreted, out_of_reach, run

_MOST_CHANNELS = 4096
_NUMBERS = 4096
"""The numbers of one tensor that a program of the forward pass holds at a time."""
_PROGRAMS = 1024
"""The most programs that sum up the gradients of weight and bias."""


@triton.jit(do_not_specialize=["steps"])
def channel_norm_kernel(
    x,
    weight,
    bias,
    out,
    steps,
    CHANNELS: tl.constexpr,
    EPSILON: tl.constexpr,
    ACTIVATION: tl.constexpr,
    PACKED: tl.constexpr,
    C_TILE: tl.constexpr,
    STEPS: tl.constexpr,
):
    """Fill out [clips, steps, CHANNELS] from x, which has that shape if `PACKED`.

    Otherwise x is [clips, CHANNELS, steps].
    """
    programs = tl.cdiv(steps, STEPS)
    clip = (tl.program_id(0) // programs).to(tl.int64)
    step = (tl.program_id(0) % programs) * STEPS + tl.arange(0, STEPS)[:, None]
    channel = tl.arange(0, C_TILE)[None, :]
    inside = (step < steps) & (channel < CHANNELS)
    packed = (clip * steps + step) * CHANNELS + channel
    if PACKED:
        at = packed
    else:
        at = (clip * CHANNELS + channel) * steps + step
    normed, _ = _normed(tl.load(x + at, mask=inside, other=0.0), channel, CHANNELS, EPSILON)
    y = normed * _vector(weight, channel, CHANNELS) + _vector(bias, channel, CHANNELS)
    y = activate(y, 0.0, 0.0, ACTIVATION)
    tl.store(out + packed, y.to(out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["steps"])
def channel_norm_gradient_kernel(
    upstream,
    x,
    weight,
    bias,
    out,
    sums,
    steps,
    CHANNELS: tl.constexpr,
    EPSILON: tl.constexpr,
    ACTIVATION: tl.constexpr,
    C_TILE: tl.constexpr,
    STEPS: tl.constexpr,
):
    """Fill out [steps, CHANNELS] from `upstream` and `x` of that shape, and `sums`.

    sums [programs, 2, CHANNELS] are the shares of each program's steps in the gradients of weight
    and bias.
    """
    channel = tl.arange(0, C_TILE)[None, :]
    real = channel < CHANNELS
    gain = _vector(weight, channel, CHANNELS)
    shift = _vector(bias, channel, CHANNELS)
    to_weight = tl.zeros([STEPS, C_TILE], tl.float32)
    to_bias = tl.zeros([STEPS, C_TILE], tl.float32)
    for tile in range(tl.program_id(0), tl.cdiv(steps, STEPS), tl.num_programs(0)):
        step = tile * STEPS + tl.arange(0, STEPS)[:, None]
        inside = (step < steps) & real
        at = step.to(tl.int64) * CHANNELS + channel
        normed, inverse = _normed(
            tl.load(x + at, mask=inside, other=0.0), channel, CHANNELS, EPSILON
        )
        given = tl.load(upstream + at, mask=inside, other=0.0).to(tl.float32)
        if ACTIVATION == "silu":
            y = normed * gain + shift
            half = 1 / (1 + tl.exp(-y))
            given *= half * (1 + y * (1 - half))
        to_weight += given * normed
        to_bias += given
        given *= gain
        mean = tl.sum(given, axis=1)[:, None] / CHANNELS
        along = tl.sum(given * normed, axis=1)[:, None] / CHANNELS
        found = inverse * (given - mean - along * normed)
        tl.store(out + at, found.to(out.dtype.element_ty), mask=inside)
    mine = sums + tl.program_id(0) * 2 * CHANNELS + channel
    tl.store(mine, tl.sum(to_weight, axis=0)[None, :], mask=real)
    tl.store(mine + CHANNELS, tl.sum(to_bias, axis=0)[None, :], mask=real)


@triton.jit
def _normed(x, channel, CHANNELS: tl.constexpr, EPSILON: tl.constexpr):
    """Return x [steps, channels] with mean 0 and variance 1, and the factor [steps, 1] for that.

    The result is zero behind the channels.
    """
    x = x.to(tl.float32)
    mean = tl.sum(x, axis=1)[:, None] / CHANNELS
    x = tl.where(channel < CHANNELS, x - mean, 0.0)
    inverse = 1 / tl.sqrt(tl.sum(x * x, axis=1)[:, None] / CHANNELS + EPSILON)
    return x * inverse, inverse


@triton.jit
def _vector(values, channel, CHANNELS: tl.constexpr):
    """Return the values of the channels in float32."""
    return tl.load(values + channel, mask=channel < CHANNELS, other=0.0).to(tl.float32)


def plan(x: Tensor, weight: Tensor, bias: Tensor, activation: str, out: Tensor) -> Launch:
    """Return the launch that fills out [clips, steps, channels], contiguous.

    x is [clips, steps, channels] too, and contiguous, or contiguous with its last two axes swapped.
    """
    clips, steps, channels = out.shape
    c_tile = triton.next_power_of_2(channels)
    tile = max(1, _NUMBERS // max(c_tile, 16))
    packed = x.is_contiguous()
    return Launch(
        channel_norm_kernel,
        (clips * triton.cdiv(steps, tile),),
        {
            "x": x,
            "weight": weight,
            "bias": bias,
            "out": out,
            "steps": steps,
        },
        {
            "CHANNELS": channels,
            "EPSILON": EPSILON,
            "ACTIVATION": activation,
            "PACKED": packed,
            "C_TILE": c_tile,
            "STEPS": tile,
        },
        wide=128 if packed and channels % 16 == 0 else 0,
    )


def plan_gradient(
    upstream: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    activation: str,
    out: Tensor,
    sums: Tensor,
) -> Launch:
    """Return the launch that fills out [steps, channels] and sums [programs, 2, channels].

    `upstream` and x are of out's shape; all are contiguous.
    """
    steps, channels = out.shape
    c_tile = triton.next_power_of_2(channels)
    aligned = channels % 16 == 0
    return Launch(
        channel_norm_gradient_kernel,
        (len(sums),),
        {
            "upstream": upstream,
            "x": x,
            "weight": weight,
            "bias": bias,
            "out": out,
            "sums": sums,
            "steps": steps,
        },
        {
            "CHANNELS": channels,
            "EPSILON": EPSILON,
            "ACTIVATION": activation,
            "C_TILE": c_tile,
            "STEPS": _gradient_steps(channels),
        },
        # With 4 warps a thread holds 16 numbers of each tensor. That is too many where rows are
        # long, or are read in narrow pieces, each with a mask of its own.
        warps=4 if aligned and c_tile <= 128 else 8,
        registers=128 if c_tile <= 2048 else 255,
        wide=128 if aligned else 0,
    )


def scratch(steps: int, channels: int, device: torch.device) -> Tensor:
    """Allocate [programs, 2, channels] for the sums of the programs."""
    programs = min(_PROGRAMS, triton.cdiv(steps, _gradient_steps(channels)))
    return torch.empty((programs, 2, channels), dtype=torch.float32, device=device)


def _gradient_steps(channels: int) -> int:
    return max(1, _NUMBERS // 2 // max(triton.next_power_of_2(channels), 16))


def channel_norm(x: Tensor, weight: Tensor, bias: Tensor, activation: str) -> Tensor:
    """Compute `melcap.ops.channel_norm`."""
    out = x.new_empty((len(x), *x.shape[2:], x.shape[1]))
    if out.numel():
        last = x.movedim(1, -1)
        clips, channels = x.shape[:2]
        if x.is_contiguous() and not last.is_contiguous():
            given = x.view(clips, channels, -1).transpose(1, 2)
        else:
            given = last.contiguous().view(1, -1, channels)
        vectors = weight.contiguous(), bias.contiguous()
        run(plan(given, *vectors, activation, out.view(given.shape)))
    return out.movedim(-1, 1)


def channel_norm_gradient(
    upstream: Tensor, x: Tensor, weight: Tensor, bias: Tensor, activation: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of x, weight and bias, given that of the result."""
    shape, channels = (len(x), *x.shape[2:], x.shape[1]), x.shape[1]
    out = x.new_empty(shape)
    if not out.numel():
        return out.movedim(-1, 1), torch.zeros_like(weight), torch.zeros_like(bias)
    rows = out.view(-1, channels)
    given = (_rows(upstream, rows), _rows(x, rows))
    sums = scratch(len(rows), channels, x.device)
    run(plan_gradient(*given, weight.contiguous(), bias.contiguous(), activation, rows, sums))
    to_weight, to_bias = sums.sum(0)
    return out.movedim(-1, 1), to_weight.to(weight.dtype), to_bias.to(bias.dtype)


def _rows(tensor: Tensor, rows: Tensor) -> Tensor:
    """Return [batch, channels, ...] in the order of `rows` [steps, channels]."""
    return tensor.movedim(1, -1).contiguous().view(rows.shape)


def unsupported(x: Tensor, weight: Tensor, bias: Tensor, activation: str) -> list[str]:
    """Return why the kernels cannot run on these arguments; [] if they can."""
    reasons = out_of_reach(x, weight, bias)
    if not x.device == weight.device == bias.device:
        devices = sorted({str(tensor.device) for tensor in (x, weight, bias)})
        reasons.append(f"tensors are on several devices: {', '.join(devices)}")
    channels = x.shape[1]
    if channels > _MOST_CHANNELS:
        reasons.append(f"at most {_MOST_CHANNELS} channels fit on the chip, not {channels}")
    if x.numel() // max(channels, 1) >= 2**31 - _NUMBERS:
        reasons.append(f"{x.numel() // channels} positions are more than a kernel counts")
    if torch.bfloat16 in {x.dtype, weight.dtype, bias.dtype} and interpreted():
        reasons.append("triton's interpreter computes bfloat16 wrongly")
    return reasons


def shipped() -> dict[str, Launch]:
    """Return the launches of the model, its training and the benchmarks, and the other tilings."""
    single, half, bfloat = torch.float32, torch.float16, torch.bfloat16
    found: dict[str, Launch] = {}
    for name, channels, dtype, activation, packed in (
        ("32, SiLU", 32, single, "silu", True),
        ("32, SiLU, fp16", 32, half, "silu", True),
        ("32, SiLU, bf16", 32, bfloat, "silu", True),
        ("64, SiLU", 64, single, "silu", True),
        ("128, SiLU", 128, single, "silu", True),
        ("128", 128, single, "none", True),
        ("128, SiLU, bf16", 128, bfloat, "silu", True),
        ("256, channels apart", 256, single, "none", False),
        ("256, channels apart, bf16", 256, bfloat, "none", False),
        ("51, SiLU", 51, single, "silu", True),
        ("66, SiLU", 66, single, "silu", True),
        ("256, SiLU", 256, single, "silu", True),
        ("4096, SiLU", 4096, single, "silu", True),
    ):
        x = torch.empty((1, 1000, channels), dtype=dtype, device="meta")
        weight = torch.empty(channels, device="meta")
        given = x if packed else x.mT.contiguous().mT
        found[name] = plan(given, weight, weight, activation, x)
        sums = scratch(1000, channels, x.device)
        if packed:
            found[f"{name}: gradient"] = plan_gradient(
                x[0], x[0], weight, weight, activation, x[0], sums
            )
    return found


register(
    "channel_norm",
    "triton",
    Implementation(
        channel_norm,
        {
            torch.float32: Tolerance(atol=5e-6, rtol=5e-6),
            torch.float16: Tolerance(atol=1e-5, rtol=6e-4),
            torch.bfloat16: Tolerance(atol=1e-5, rtol=4.5e-3),
        },
        unsupported,
        gradient=channel_norm_gradient,
    ),
)
