"""List the launches that the ahead-of-time gate compiles."""

from __future__ import annotations

import torch
from torch import Tensor

from melcap.ops.convnext1d import Parameters

from ..conv2d.launches import Halves
from ..conv2d.sizes import Layer, tile_of
from ..conv2d.weights import Matrix
from ..launch import Launch
from .launches import plan_norm, plan_products
from .mlp import plan_mlp, scratch
from .weights import Tables, layers_of

_STEPS = 172


def shipped() -> dict[str, Launch]:
    """Return the launches of the models and the benchmarks, and the other tilings."""
    single, half, bfloat = torch.float32, torch.float16, torch.bfloat16
    found: dict[str, Launch] = {}
    for name, channels, hidden, kernel, dtype in (
        ("lite, 256/512", 256, 512, 7, single),
        ("lite, 256/512, fp16", 256, 512, 7, half),
        ("lite, 256/512, bf16", 256, 512, 7, bfloat),
        ("lite, 128/256", 128, 256, 7, single),
        ("lite, 128/256, fp16", 128, 256, 7, half),
        ("lite, 128/256, bf16", 128, 256, 7, bfloat),
        ("Vocos, 512/1536", 512, 1536, 7, single),
        ("Vocos, 512/1536, bf16", 512, 1536, 7, bfloat),
        ("51/77, 31 taps", 51, 77, 31, single),
        ("51/77, 31 taps, fp16", 51, 77, 31, half),
        ("4096/64, 1 tap", 4096, 64, 1, single),
    ):
        plan = _in_float32 if dtype == single else _in_16_bits
        for part, launch in plan(channels, hidden, kernel, dtype).items():
            found[f"{name}: {part}"] = launch
    return found


def _in_float32(channels: int, hidden: int, kernel: int, dtype: torch.dtype) -> dict[str, Launch]:
    first, second = layers_of(channels, hidden)
    scale = _empty(2, dtype=dtype)
    tables = Tables(
        normed=scale,
        expand=_matrix(first),
        expand_bias=_empty(hidden, dtype=dtype),
        hidden=scale,
        contract=_matrix(second),
        contract_bias=_empty(channels, dtype=dtype),
    )
    x = _empty(1, _STEPS + kernel - 1, channels, dtype=dtype)
    taps, bias = _empty(kernel, channels, dtype=dtype), tables.contract_bias
    normed = Halves.empty(1, 1, _STEPS, channels, scale)
    between = Halves.empty(1, 1, _STEPS, hidden, scale)
    out = _empty(1, _STEPS, channels, dtype=dtype)
    found = {"norm": plan_norm(x, taps, bias, None, normed)}
    for roomy in (False, True):
        launches = plan_products(x[:, kernel // 2 :], tables, normed, between, out, roomy)
        for part, launch in zip(("expand", "contract"), launches, strict=True):
            if launch.shared or not roomy:
                found[part + (", roomy" if roomy else "")] = launch
    return found


def _matrix(layer: Layer) -> Matrix:
    """Return the matrix of a layer, without numbers."""
    tile = tile_of(layer.columns)
    columns = -(-layer.columns // tile) * tile
    half = _empty(columns, layer.products * layer.depth, dtype=torch.float16)
    return Matrix(half, half, _empty(columns, dtype=torch.float32))


def _in_16_bits(channels: int, hidden: int, kernel: int, dtype: torch.dtype) -> dict[str, Launch]:
    vector = _empty(channels, dtype=dtype)
    parameters = Parameters(
        depthwise_weight=_empty(channels, 1, kernel, dtype=dtype),
        depthwise_bias=vector,
        norm_weight=vector,
        norm_bias=vector,
        expand_weight=_empty(hidden, channels, dtype=dtype),
        expand_bias=_empty(hidden, dtype=dtype),
        contract_weight=_empty(channels, hidden, dtype=dtype),
        contract_bias=vector,
        scale=vector,
    )
    x, out = (_empty(1, steps, channels, dtype=dtype) for steps in (_STEPS + kernel - 1, _STEPS))
    taps, normed = _empty(kernel, channels, dtype=dtype), scratch(out)
    return {
        "norm": plan_norm(x, taps, vector, (vector, vector), normed),
        "mlp": plan_mlp(x[:, kernel // 2 :], parameters, normed, out),
    }


def _empty(*shape: int, dtype: torch.dtype) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")
