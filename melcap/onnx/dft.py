"""The DFT of real signals as two products with small matrices: what every graph runtime has.

The step of Cooley and Tukey (1965) for n = rows * columns: sample i = columns * i1 + i2, bin
k = k1 + rows * k2, and

    X[k] = sum over i2 of exp(-2 pi i (i2 k1 / n + i2 k2 / columns)) *
           sum over i1 of exp(-2 pi i i1 k1 / rows) * x[i]

The inner sum is one product for all, the outer one a product for each k1. The signal is real, so
k1 up to rows / 2 is enough: what is left out are conjugates. With rows and columns near sqrt(n)
this takes about a tenth of the operations of one product with an n x n matrix, and rounds less.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def _turns(turns: Tensor) -> Tensor:
    """exp(2 pi i turns), complex128; whole turns are left away first, for exactness."""
    return torch.polar(torch.ones_like(turns), 2 * math.pi * (turns - turns.round()))


def _outer(a: int, b: int, period: int) -> Tensor:
    """i * j / period for i below a and j below b, float64 [a, b]."""
    return torch.outer(torch.arange(a), torch.arange(b)).double() / period


def _as_real(matrix: Tensor) -> Tensor:
    """Complex [..., a, b] as real [..., 2a, 2b]: acts on (real parts, imaginary parts)."""
    top = torch.cat((matrix.real, matrix.imag), dim=-1)
    return torch.cat((top, torch.cat((-matrix.imag, matrix.real), dim=-1)), dim=-2)


class _Split(nn.Module):
    """How n = rows * columns is split, and where the bins 0..n / 2 lie in the grid [k1, k2]."""

    inner: Tensor
    outer: Tensor
    place: Tensor
    sign: Tensor

    def __init__(self, n: int) -> None:
        super().__init__()
        if n < 4 or n % 2:
            raise ValueError(f"a DFT of {n} samples is not built: n must be even, 4 or more")
        # even, so that k1 = rows / 2 exists
        self.rows = max(r for r in range(2, math.isqrt(n) + 1, 2) if n % r == 0)
        self.columns, self.n, self.kept = n // self.rows, n, self.rows // 2 + 1

    def _keep(self, inner: Tensor, outer: Tensor, place: Tensor, sign: Tensor) -> None:
        """Constants are rounded to float32 once."""
        self.register_buffer("inner", inner.float(), persistent=False)
        self.register_buffer("outer", outer.float(), persistent=False)
        self.register_buffer("place", place, persistent=False)
        self.register_buffer("sign", sign.float(), persistent=False)


class RealDFT(_Split):
    """[..., n] -> [..., n + 2]: real parts of the bins 0 to n / 2, then their imaginary parts."""

    def __init__(self, n: int) -> None:
        super().__init__(n)
        rows, columns, kept = self.rows, self.columns, self.kept
        inner = _turns(-_outer(rows, kept, rows))
        twiddle = _turns(-_outer(kept, columns, n))[:, :, None]
        outer = _as_real(twiddle * _turns(-_outer(columns, columns, columns)))
        bins = torch.arange(n // 2 + 1)
        conjugate = bins % rows >= kept
        source = torch.where(conjugate, n - bins, bins)
        place = source % rows * 2 * columns + source // rows
        sign = torch.where(conjugate, -1, 1)
        self._keep(
            torch.cat((inner.real, inner.imag), dim=-1),
            outer,
            torch.cat((place, place + columns)),
            torch.cat((torch.ones_like(sign), sign)),
        )

    def forward(self, x: Tensor) -> Tensor:
        rows, columns, kept = self.rows, self.columns, self.kept
        grid = x.reshape(-1, rows, columns).transpose(1, 2) @ self.inner
        by_k1 = grid.unflatten(2, (2, kept)).permute(3, 0, 2, 1).flatten(2)
        bins = torch.bmm(by_k1, self.outer).transpose(0, 1).flatten(1)
        return (bins[:, self.place] * self.sign).unflatten(0, x.shape[:-1])


class InverseRealDFT(_Split):
    """[..., n + 2] as `RealDFT` gives it -> [..., n].

    The imaginary parts of the bins 0 and n / 2 are not looked at, as in `torch.fft.irfft`.
    """

    def __init__(self, n: int) -> None:
        super().__init__(n)
        rows, columns, kept = self.rows, self.columns, self.kept
        twiddle = _turns(_outer(columns, kept, n).t())[:, None, :]
        outer = _as_real(twiddle * _turns(_outer(columns, columns, columns)))
        k1 = torch.arange(kept)
        # what was left out are conjugates, and adds the same once more
        weight = torch.where((k1 == 0) | (2 * k1 == rows), 1.0, 2.0).double() / n
        inner = weight[:, None] * _turns(_outer(kept, rows, rows))
        bins = k1[:, None] + rows * torch.arange(columns)
        conjugate = bins > n // 2
        place = torch.where(conjugate, n - bins, bins)
        sign = torch.where(conjugate, -1, 1) * (bins % (n // 2) != 0)
        self._keep(
            torch.cat((inner.real, -inner.imag)),
            outer,
            torch.stack((place, place + n // 2 + 1), dim=1).flatten(),
            torch.stack((torch.ones_like(sign), sign), dim=1).flatten(),
        )

    def forward(self, x: Tensor) -> Tensor:
        columns, kept = self.columns, self.kept
        bins = x.reshape(-1, self.n + 2)[:, self.place] * self.sign
        by_k1 = bins.unflatten(1, (kept, 2 * columns)).transpose(0, 1)
        grid = torch.bmm(by_k1, self.outer).unflatten(2, (2, columns))
        wave = grid.permute(1, 3, 2, 0).flatten(2) @ self.inner
        return wave.transpose(1, 2).flatten(1).unflatten(0, x.shape[:-1])
