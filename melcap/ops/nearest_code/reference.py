"""Find the nearest code in plain PyTorch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from melcap.ops.numerics import working_dtype

TIE = 1e-6
"""Codes whose distances differ by less than this fraction tie, and the lowest index wins."""

_BLOCK = 64
_SCORES_AT_ONCE = {"cpu": 2**20}
"""On a CPU the scores stay in cache; elsewhere fewer, larger launches are better."""
_ROWS_AT_ONCE = 2**10
"""Rows whose candidates are measured together: where all codes tie, there are many."""
_PAIRS_AT_ONCE = 2**14


def nearest_code_reference(x: Tensor, codebook: Tensor) -> Tensor:
    """Compute `melcap.ops.nearest_code`.

    A matrix product scores every code by x.c - |c|^2 / 2. Its rounding could swap close codes, so
    codes within its error bound of the best are measured again, as differences in float64. The
    maxima of blocks of codes show which blocks may hold such codes; only these are searched.
    """
    dtype = working_dtype(x)
    rows, codes = x.to(dtype), codebook.to(dtype)
    half_norms = codes.square().sum(1, keepdim=True) / 2
    # One factor more is faster than adding the norms to a product.
    by_code = torch.cat((codes, -half_norms), dim=1)
    spare = by_code.new_zeros(-len(codes) % _BLOCK, by_code.shape[1])
    spare[:, -1] = -torch.inf
    by_code = torch.cat((by_code, spare))
    unit = torch.finfo(dtype).eps
    if dtype == torch.float32 and torch.get_float32_matmul_precision() != "highest":
        unit = 2.0**-8
    error = (codes.shape[1] + 4) * unit + 4 * TIE
    reach = codes.norm(dim=1).max()
    at_once = max(1, _SCORES_AT_ONCE.get(x.device.type, 2**26) // len(codes))
    # One buffer for all, because pages that are new to the process cost as much as the product.
    scores = rows.new_empty(len(by_code), min(at_once, len(rows)))
    found = [rows.new_empty(0, dtype=torch.int32)]
    for part in rows.split(max(_ROWS_AT_ONCE, at_once)):
        factors = F.pad(part, (0, 1), value=1.0)
        peaks = rows.new_empty(len(by_code) // _BLOCK, len(part))
        for some, peak in zip(factors.split(at_once), peaks.split(at_once, dim=1), strict=True):
            torch.mm(by_code, some.t(), out=scores[:, : len(some)])
            torch.amax(scores[:, : len(some)].unflatten(0, (-1, _BLOCK)), 1, out=peak)
        bound = peaks.amax(0) - error * (part.norm(dim=1) + reach).square()
        # Where squares overflow, the bound is NaN and every code is measured.
        block, row = (~(peaks < bound)).nonzero(as_tuple=True)
        pairs = [
            _candidates(by_code, factors, bound, *some)
            for some in zip(
                row.split(_PAIRS_AT_ONCE // _BLOCK),
                block.split(_PAIRS_AT_ONCE // _BLOCK),
                strict=True,
            )
        ]
        row, code = (torch.cat(each) for each in zip(*pairs, strict=True))
        found.append(_lowest_of_the_nearest(part, codes, row, code.clamp(max=len(codes) - 1)))
    return torch.cat(found)


def _candidates(
    by_code: Tensor, factors: Tensor, bound: Tensor, row: Tensor, block: Tensor
) -> tuple[Tensor, Tensor]:
    """Return (row, code) of all scores that are not below the bound, in pairs (row, block)."""
    codes = by_code.unflatten(0, (-1, _BLOCK))[block]
    scores = torch.bmm(codes, factors[row, :, None])[..., 0]
    pair, place = (~(scores < bound[row, None])).nonzero(as_tuple=True)
    return row[pair], block[pair] * _BLOCK + place


def _lowest_of_the_nearest(rows: Tensor, codes: Tensor, row: Tensor, code: Tensor) -> Tensor:
    """Return each row's lowest code within `TIE` of its nearest, of candidates (row, code)."""
    pairs = zip(row.split(_PAIRS_AT_ONCE), code.split(_PAIRS_AT_ONCE), strict=True)
    distance = torch.cat([(rows[r].double() - codes[c].double()).norm(dim=1) for r, c in pairs])
    nearest = distance.new_full((len(rows),), torch.inf)
    nearest.scatter_reduce_(0, row, distance, "amin")
    tied = distance <= nearest[row] * (1 + TIE)
    lowest = code.new_full((len(rows),), len(codes))
    lowest.scatter_reduce_(0, row[tied], code[tied], "amin")
    return lowest.clamp(max=len(codes) - 1).to(torch.int32)  # a row with NaN ties with no code
