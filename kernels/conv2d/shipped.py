"""List the launches that the ahead-of-time gate compiles."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..launch import Launch
from .launches import Halves, plan_conv2d, plan_halves
from .sizes import Layer, Tiling, tile_of
from .weights import Matrix


def shipped() -> dict[str, Launch]:
    """Return the launches of the models, and the other kinds."""
    found: dict[str, Launch] = {}
    for name, channels, activation, packed in (
        ("norm of 32, SiLU", 32, "silu", True),
        ("norm of 128, SiLU", 128, "silu", True),
        ("norm of 64", 64, "none", True),
        ("norm of 51, SiLU", 51, "silu", True),
        ("256 without norm, channels apart", 256, "none", False),
    ):
        out = Halves.empty(1, 10, 100, channels, _empty(2))
        x = _empty(1, 1000, channels)
        given = x if packed else x.mT.contiguous().mT
        norm = () if "without" in name else (_empty(channels), _empty(channels))
        found[name] = plan_halves(given, norm, activation, 100, 0, out)
    for name, layer, tail in (
        ("lite, 32 to 32, 3 x 3", Layer(32, 32, (3, 3), padding=1), "norm"),
        ("lite, 32 to 32, 3 x 1", Layer(32, 32, (3, 1), padding=1), "residual"),
        ("lite, 64 to 64, 3 x 3", Layer(64, 64, (3, 3), padding=1), "norm"),
        ("lite, 64 to 64, 3 x 1", Layer(64, 64, (3, 1), padding=1), "residual"),
        ("lite, 128 to 128, 3 x 3", Layer(128, 128, (3, 3), padding=1), "norm"),
        ("lite, 128 to 128, 3 x 1", Layer(128, 128, (3, 1), padding=1), "residual"),
        ("lite, 32 to 64, down", Layer(32, 64, (2, 2), (2, 2)), ""),
        ("lite, 64 to 128, down", Layer(64, 128, (2, 2), (2, 2)), ""),
        ("lite, 128 to 64, up", Layer(128, 256, (1, 1), up=(2, 2)), ""),
        ("lite, 64 to 32, up", Layer(64, 128, (1, 1), up=(2, 2)), ""),
        ("Haar split, TF32", Layer(1, 4, (2, 2), (2, 2), halves=False), ""),
        ("Haar merge, TF32", Layer(4, 4, (1, 1), up=(2, 2), halves=False), ""),
        ("lite, 96 to 256, 5 steps, TF32", Layer(96, 256, (1, 5), halves=False), ""),
        ("lite, 256 to 1026, TF32", Layer(256, 1026, (1, 1), halves=False), ""),
        ("lite, 4 to 32, TF32", Layer(4, 32, (3, 3), padding=1, halves=False), "rows"),
        ("lite, 8 to 128, TF32", Layer(8, 128, (3, 3), padding=1, halves=False), "rows"),
        ("lite, 128 to 8", Layer(128, 8, (3, 3), padding=1), ""),
        ("lite, 32 to 4", Layer(32, 4, (3, 3), padding=1), ""),
        ("base, 512 to 512, 3 x 3", Layer(512, 512, (3, 3), padding=1), "residual"),
        ("base, 512 to 512, TF32", Layer(512, 512, (3, 3), (2, 2), halves=False), ""),
        ("51 to 77, 3 x 5", Layer(51, 77, (3, 5), padding=1), "norm"),
        ("51 to 77, 3 x 5, TF32", Layer(51, 77, (3, 5), padding=1, halves=False), "residual"),
    ):
        for roomy in (False, True):
            tiling = Tiling.of(layer, roomy)
            if tiling.shared or not roomy:
                suffix = ", roomy" if tiling.shared else ""
                found[name + suffix] = _launch(layer, tiling, tail)
    return found


def _launch(layer: Layer, tiling: Tiling, tail: str) -> Launch:
    """Return the launch of a layer with a norm into halves, a residual or rows, or neither."""
    channels = layer.columns // (layer.up[0] * layer.up[1])
    half = torch.float16 if layer.halves else torch.float32
    filled = -(-layer.columns // tile_of(layer.columns)) * tile_of(layer.columns)
    part = _empty(filled, layer.products * layer.depth, dtype=half)
    x: Tensor | Halves = _empty(1, 48, 100, layer.channels)
    if layer.halves:
        x = Halves.empty(1, 48, 100, layer.channels, _empty(2))
    out: Tensor | Halves = _empty(1, 48 * layer.up[0], 98 * layer.up[1], channels)
    others: dict[str, Any] = {"bias": _empty(channels)}
    if tail == "norm":
        out = Halves.empty(1, 48, 98, channels, _empty(2))
        others |= {"norm": (_empty(channels), _empty(channels)), "activation": "silu"}
    if tail == "residual":
        others["residual"] = _empty(1, 48, 100, channels).movedim(-1, 1)[..., 1:-1]
    if tail == "rows":
        others["rows"] = _empty(48, channels)
    return plan_conv2d(layer, x, Matrix(part, part, _empty(filled)), out, tiling, **others)


def _empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")
