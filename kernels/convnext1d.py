"""A ConvNeXt block in two launches: the hidden layer, the widest tensor, never touches memory.

`convnext1d_norm` turns a few steps of all channels into normalised vectors: one load for each tap
(neighbouring taps share them in the cache), a sum, mean and variance in float32. They are written
[steps, channels], with channels next to each other, as the products want them. `convnext1d_mlp`
takes a tile of steps through both linear layers: a slice of hidden channels at a time is computed,
bent by GELU and multiplied into the sums of all output channels, which stay on the chip. Products
are weights times activations, not the other way round: then the result stands [channels, steps] as
memory does, and on every target fewer numbers must be held twice.

Count for 256 channels, 512 hidden, float32, for each step: 1 KiB read, 1 KiB written and read again
between the launches (from the cache up to some ten thousand steps), 1 KiB read for the skip and 1
KiB written: 5 KiB. The plain chain moves 24: transposed copies, norm, skip and scale 8, hidden
layer 16. Arithmetic is 4 * 256 * 512 = 0.5 MFLOP, three times that in TF32, against 3.6 kFLOP for
taps. A tile of 64 steps reads the weights, 1 MiB, from the cache once. A single launch would have
to hold the normalised tile beside the sums: it needs 200 KiB of shared memory or spills on every
target.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from melcap.kernels.launch import Launch, out_of_reach, run
from melcap.ops import reference, registry

_MOST_CHANNELS = 512
_NORMED = 4096
"""Numbers that one program normalises, of up to 16 steps."""


@dataclass(frozen=True)
class Tiling:
    """How `convnext1d_mlp` is cut, from the layer's own dimensions and nothing else.

    `steps`, `hidden` and `channels` (a power of two) are what a program holds at a time; `depth`
    channels are read at a time for the hidden layer.
    """

    channels: int
    steps: int
    hidden: int
    depth: int
    warps: int
    stages: int

    @staticmethod
    def of(channels: int, dtype: torch.dtype) -> Tiling:
        c_tile = max(16, triton.next_power_of_2(channels))
        half = dtype != torch.float32
        return Tiling(
            channels=c_tile,
            steps=32 if c_tile > 256 else 64,
            hidden=(32 if c_tile > 256 else 64) if half else (32 if c_tile <= 128 else 16),
            depth=min(c_tile, 64 if half else 16 if c_tile > 256 else 32),
            warps=8 if c_tile > 64 else 4,
            stages=3,
        )


def _precision(_semantic=None):
    """How float32 is multiplied: as three products of TF32, or as it is where a target can."""
    if _semantic is None:  # interpreted
        return "ieee"
    allowed = _semantic.builder.options.allowed_dot_input_precisions
    return tl.constexpr("tf32x3" if "tf32x3" in allowed else "ieee")


_precision.__triton_builtin__ = True  # type: ignore[attr-defined]


@triton.jit(do_not_specialize=["batch_stride", "channel_stride", "steps"])
def convnext1d_norm(
    x, depthwise_weight, depthwise_bias, norm_weight, norm_bias, out,
    batch_stride, channel_stride, steps,
    CHANNELS: tl.constexpr, KERNEL: tl.constexpr, EPSILON: tl.constexpr,
    C_TILE: tl.constexpr, T_TILE: tl.constexpr, STEPS: tl.constexpr,
):  # fmt: skip
    """Fills out [batch, steps to a whole T_TILE, C_TILE]; zeros behind the channels."""
    rows = tl.cdiv(steps, T_TILE) * T_TILE
    programs = rows // STEPS
    clip = (tl.program_id(0) // programs).to(tl.int64)
    step = (tl.program_id(0) % programs) * STEPS + tl.arange(0, STEPS)
    channel = tl.arange(0, C_TILE)
    real = channel < CHANNELS
    inside = (step < steps)[:, None] & real[None, :]
    at = x + clip * batch_stride + channel[None, :] * channel_stride + step[:, None]
    y = tl.zeros([STEPS, C_TILE], tl.float32) + _vector(depthwise_bias, channel, real)[None, :]
    for tap in range(KERNEL):
        weight = _vector(depthwise_weight + tap, channel * KERNEL, real)
        y += weight[None, :] * tl.load(at + tap, mask=inside, other=0.0).to(tl.float32)
    mean = tl.sum(y, axis=1) / CHANNELS
    y = tl.where(real[None, :], y - mean[:, None], 0.0)
    variance = tl.sum(y * y, axis=1) / CHANNELS
    y *= (1 / tl.sqrt(variance + EPSILON))[:, None]
    y = (
        y * _vector(norm_weight, channel, real)[None, :]
        + _vector(norm_bias, channel, real)[None, :]
    )
    out += clip * rows * C_TILE
    tl.store(out + step[:, None] * C_TILE + channel[None, :], y.to(out.dtype.element_ty))


@triton.jit(do_not_specialize=["batch_stride", "channel_stride", "steps"])
def convnext1d_mlp(
    x, normed, expand_weight, expand_bias, contract_weight, contract_bias, scale, out,
    batch_stride, channel_stride, steps,
    CHANNELS: tl.constexpr, HIDDEN: tl.constexpr, C_TILE: tl.constexpr, T_TILE: tl.constexpr,
    H_TILE: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """Fills out [batch, channels, steps] from x (where the skip begins) and what is normalised."""
    programs = tl.cdiv(steps, T_TILE)
    clip = (tl.program_id(0) // programs).to(tl.int64)
    step = (tl.program_id(0) % programs) * T_TILE + tl.arange(0, T_TILE)
    channel = tl.arange(0, C_TILE)
    real = channel < CHANNELS
    row = normed + clip * programs * T_TILE * C_TILE + step[None, :] * C_TILE
    y = tl.zeros([C_TILE, T_TILE], tl.float32)
    for first in range(0, HIDDEN, H_TILE):
        hidden = first + tl.arange(0, H_TILE)
        used = hidden < HIDDEN
        z = tl.zeros([H_TILE, T_TILE], tl.float32)
        for begin in range(0, CHANNELS, DEPTH):
            part = begin + tl.arange(0, DEPTH)
            weight = tl.load(
                expand_weight + hidden[:, None] * CHANNELS + part[None, :],
                mask=used[:, None] & (part < CHANNELS)[None, :],
                other=0.0,
            )
            z = tl.dot(weight, tl.load(row + part[:, None]), z, input_precision=_precision())
        z += _vector(expand_bias, hidden, used)[:, None]
        z *= 0.5 + 0.5 * tl.erf(z * 0.7071067811865476)
        weight = tl.load(
            contract_weight + channel[:, None] * HIDDEN + hidden[None, :],
            mask=real[:, None] & used[None, :],
            other=0.0,
        )
        y = tl.dot(weight, z.to(weight.dtype), y, input_precision=_precision())
    y = (y + _vector(contract_bias, channel, real)[:, None]) * _vector(scale, channel, real)[
        :, None
    ]
    inside = real[:, None] & (step < steps)[None, :]
    x += clip * batch_stride
    y += tl.load(x + channel[:, None] * channel_stride + step[None, :], mask=inside, other=0.0).to(
        tl.float32
    )
    out += clip * CHANNELS * steps
    tl.store(
        out + channel[:, None] * steps + step[None, :], y.to(out.dtype.element_ty), mask=inside
    )


@triton.jit
def _vector(values, index, mask):
    """values[index] in float32, zero where the mask is not set."""
    return tl.load(values + index, mask=mask, other=0.0).to(tl.float32)


def plan(
    x: Tensor,
    parameters: tuple[Tensor, ...],
    normed: Tensor,
    out: Tensor,
) -> tuple[Launch, Launch]:
    """The launches that fill `normed` (from `scratch`), then `out` [batch, channels, steps].

    `x` has consecutive steps; `parameters` are the operation's other arguments, contiguous.
    """
    (
        depthwise_weight, depthwise_bias, norm_weight, norm_bias,
        expand_weight, expand_bias, contract_weight, contract_bias, scale,
    ) = parameters  # fmt: skip
    batch, channels, steps = out.shape
    kernel, hidden = depthwise_weight.shape[2], expand_weight.shape[0]
    tiling = Tiling.of(channels, x.dtype)
    c_tile = tiling.channels
    lengths = {"batch_stride": x.stride(0), "channel_stride": x.stride(1), "steps": steps}
    normed_steps = min(16, _NORMED // c_tile)
    norm = Launch(
        convnext1d_norm,
        (batch * normed.shape[1] // normed_steps,),
        {
            "x": x,
            "depthwise_weight": depthwise_weight,
            "depthwise_bias": depthwise_bias,
            "norm_weight": norm_weight,
            "norm_bias": norm_bias,
            "out": normed,
            **lengths,
        },
        {
            "CHANNELS": channels,
            "KERNEL": kernel,
            "EPSILON": reference.EPSILON,
            "C_TILE": c_tile,
            "T_TILE": tiling.steps,
            "STEPS": normed_steps,
        },
        warps=max(1, normed_steps * c_tile // 512),
    )
    mlp = Launch(
        convnext1d_mlp,
        (batch * normed.shape[1] // tiling.steps,),
        {
            "x": x[..., kernel // 2 :],
            "normed": normed,
            "expand_weight": expand_weight,
            "expand_bias": expand_bias,
            "contract_weight": contract_weight,
            "contract_bias": contract_bias,
            "scale": scale,
            "out": out,
            **lengths,
        },
        {
            "CHANNELS": channels,
            "HIDDEN": hidden,
            "C_TILE": c_tile,
            "T_TILE": tiling.steps,
            "H_TILE": tiling.hidden,
            "DEPTH": tiling.depth,
        },
        warps=tiling.warps,
        stages=tiling.stages,
        products="tf32" if x.dtype == torch.float32 else "half",
        wide=True,
    )
    return norm, mlp


def scratch(out: Tensor) -> Tensor:
    """Memory for the normalised steps: [batch, steps to a whole tile, channels to a whole tile]."""
    batch, channels, steps = out.shape
    tiling = Tiling.of(channels, out.dtype)
    rows = triton.cdiv(steps, tiling.steps) * tiling.steps
    return torch.empty((batch, rows, tiling.channels), dtype=out.dtype, device=out.device)


def convnext1d(x: Tensor, *parameters: Tensor) -> Tensor:
    """See `melcap.ops.convnext1d`; sums, norm and GELU in float32, products of x's dtype."""
    batch, channels, length = x.shape
    out = x.new_empty((batch, channels, length - parameters[0].shape[2] + 1))
    if out.numel():
        x = x if x.stride(2) == 1 else x.contiguous()
        given = tuple(parameter.contiguous() for parameter in parameters)
        for launch in plan(x, given, scratch(out), out):
            run(launch)
    return out


def unsupported(x: Tensor, *parameters: Tensor) -> list[str]:
    reasons = out_of_reach(x, *parameters)
    if any(parameter.dtype != x.dtype for parameter in parameters):
        reasons.append("x and all parameters must have one dtype")
    if x.shape[1] > _MOST_CHANNELS:
        reasons.append(f"at most {_MOST_CHANNELS} channels fit on the chip, not {x.shape[1]}")
    if max(x.stride(1), x.shape[2]) * _MOST_CHANNELS >= 2**31:
        reasons.append(f"a clip may have {2**31 // _MOST_CHANNELS - 1} steps, not {x.shape[2]}")
    return reasons


def shipped() -> dict[str, Launch]:
    """What the model and the benchmarks launch, and the other tilings."""
    half, bfloat = torch.float16, torch.bfloat16
    cases = {
        "lite, 256/512": (256, 512, 7, torch.float32),
        "lite, 256/512, fp16": (256, 512, 7, half),
        "lite, 256/512, bf16": (256, 512, 7, bfloat),
        "lite, 128/256": (128, 256, 7, torch.float32),
        "lite, 128/256, fp16": (128, 256, 7, half),
        "lite, 128/256, bf16": (128, 256, 7, bfloat),
        "Vocos, 512/1536": (512, 1536, 7, torch.float32),
        "Vocos, 512/1536, bf16": (512, 1536, 7, bfloat),
        "51/77, 31 taps": (51, 77, 31, torch.float32),
        "51/77, 31 taps, fp16": (51, 77, 31, half),
    }
    found: dict[str, Launch] = {}
    for name, (channels, hidden, kernel, dtype) in cases.items():

        def empty(*shape: int, dtype: torch.dtype = dtype) -> Tensor:
            return torch.empty(shape, dtype=dtype, device="meta")

        shapes = (
            (channels, 1, kernel), (channels,), (channels,), (channels,),
            (hidden, channels), (hidden,), (channels, hidden), (channels,), (channels,),
        )  # fmt: skip
        out = empty(1, channels, 172)
        parameters = tuple(empty(*shape) for shape in shapes)
        launches = plan(empty(1, channels, 171 + kernel), parameters, scratch(out), out)
        found |= {
            f"{name}: {part}": each for part, each in zip(("norm", "mlp"), launches, strict=True)
        }
    return found


_HALF = 2e-2
registry.register(
    "convnext1d",
    "triton",
    registry.Implementation(
        convnext1d,
        {
            torch.float32: registry.Tolerance(atol=2e-5, rtol=2e-5),
            torch.float16: registry.Tolerance(atol=2e-3, rtol=2e-3),
            torch.bfloat16: registry.Tolerance(atol=2e-2, rtol=2e-2),
        },
        unsupported,
    ),
)
