"""Compare nearest_code with other ways to find the nearest vector."""

from __future__ import annotations

import importlib.util

import torch
from torch import Tensor

import melcap
from cases.case import Case, Contenders
from melcap.ops import nearest_code


def cases() -> list[Case]:
    """Return the cases that are measured."""
    found = []
    for rows, codes, dim in (
        (12, 8192, 8),
        (258, 8192, 8),
        (2584, 8192, 8),
        (131072, 8192, 8),
        (1048576, 8192, 8),
        (12, 8192, 32),
        (258, 8192, 32),
        (2584, 8192, 32),
        (131072, 8192, 32),
        (1048576, 8192, 32),
        (2592, 8192, 64),  # base: one window, and the most windows that a GPU computes at once
        (41472, 8192, 64),
        (16384, 65536, 64),
        (16384, 1024, 128),
        (16384, 8192, 256),
    ):
        found.append(
            Case(
                "nearest_code",
                f"{rows} x {codes} x {dim}",
                torch.float32,
                4.0 * (rows * dim + codes * dim + rows),
                2.0 * rows * codes * dim,
                "tf32 FLOP/s",
                lambda n=rows, k=codes, d=dim: (
                    torch.randn(n, d, device="cuda"),
                    torch.randn(k, d, device="cuda"),
                ),
                nearest_code,
                _peers,
                _true_codes,
            )
        )
    return found


def _true_codes(x: Tensor, codebook: Tensor) -> Tensor:
    with melcap.use_backend("torch"):
        return nearest_code(x, codebook)


def _peers(x: Tensor, codebook: Tensor) -> Contenders:
    half_norms = codebook.square().sum(1) / 2
    at_once = max(1, 2**28 // len(codebook))

    def cdist() -> Tensor:
        return torch.cat([torch.cdist(part, codebook).argmin(1) for part in x.split(at_once)])

    def addmm() -> Tensor:
        parts = [
            torch.addmm(-half_norms, part, codebook.t()).argmax(1) for part in x.split(at_once)
        ]
        return torch.cat(parts)

    found = {"cdist + argmin": cdist, "addmm + argmax": addmm, "compiled": torch.compile(addmm)}
    return found | _flash_kmeans(x, codebook)


def _flash_kmeans(x: Tensor, codebook: Tensor) -> Contenders:
    """Return the assignment step of flash-kmeans, where it is installed; it rounds to TF32."""
    if importlib.util.find_spec("flash_kmeans") is None:
        return {}
    from flash_kmeans.assign_euclid_triton import euclid_assign_triton

    squares, norms = x.square().sum(1)[None], codebook.square().sum(1)[None]

    def assign() -> Tensor:
        found: Tensor = euclid_assign_triton(x[None], codebook[None], squares, c_sq=norms)
        return found[0]

    return {"flash-kmeans, TF32 (inexact)": assign}
