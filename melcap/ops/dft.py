"""Compute the DFT of real signals as two products with small matrices, for any graph runtime.

This is one step of Cooley and Tukey (1965) for n = rows * columns. With sample
i = columns * i1 + i2 and bin k = k1 + rows * k2,

    X[k] = sum over i2 of exp(-2 pi i (i2 k1 / n + i2 k2 / columns)) *
           sum over i1 of exp(-2 pi i i1 k1 / rows) * x[i]

The inner sum is one product for all bins, the outer sum one product for each k1. The signal is
real, so k1 up to rows / 2 is enough: the other bins are conjugates. With rows and columns near
sqrt(n) this takes about a tenth of the operations of one product with an n x n matrix, and it
rounds less.

Frames are the last axis, and a spectrum stays in the order in which the products give it, the grid
[k1, real or imaginary, k2, frame]. So every product is large, and nothing is ever transposed.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def windows_of(blocks: Tensor, n_fft: int) -> Tensor:
    """Return the windows [batch, n_fft, frames] of blocks [batch, hop, frames].

    A window is a whole number of blocks, and each block begins one.
    """
    overlap = n_fft // blocks.shape[1]
    frames = blocks.shape[2] - overlap + 1
    return torch.cat([blocks[..., k : k + frames] for k in range(overlap)], dim=1)


def _turns(turns: Tensor) -> Tensor:
    """Return exp(2 pi i turns), complex128; whole turns are removed first, for exactness."""
    return torch.polar(torch.ones_like(turns), 2 * math.pi * (turns - turns.round()))


def _outer(a: int, b: int, period: int) -> Tensor:
    """Return i * j / period for i below a and j below b, float64 [a, b]."""
    return torch.outer(torch.arange(a), torch.arange(b)).double() / period


def _as_real(matrix: Tensor) -> Tensor:
    """Return complex [..., a, b] as real [..., 2a, 2b], for (real parts, imaginary parts)."""
    top = torch.cat((matrix.real, -matrix.imag), dim=-1)
    return torch.cat((top, torch.cat((matrix.imag, matrix.real), dim=-1)), dim=-2)


class Grid:
    """The split n = rows * columns; a spectrum is a grid [kept, 2, columns, frames]."""

    def __init__(self, n: int) -> None:
        if n < 4 or n % 2:
            raise ValueError(f"a DFT of {n} samples is not built: n must be even, 4 or more")
        # Rows must be even, so that k1 = rows / 2 exists.
        self.rows = max(r for r in range(2, math.isqrt(n) + 1, 2) if n % r == 0)
        self.columns, self.n, self.kept = n // self.rows, n, self.rows // 2 + 1
        bins = (torch.arange(self.kept)[:, None] + self.rows * torch.arange(self.columns)).flatten()
        conjugate = bins > n // 2
        self.bins = torch.where(conjugate, n - bins, bins)
        """int64 [kept * columns]: the bin, 0 to n / 2, at each place of the grid."""
        self.sign = torch.where(conjugate, -1.0, 1.0)
        """[kept * columns]: -1 where the grid has the bin's conjugate, 1 elsewhere."""


class RealDFT(nn.Module):
    """The DFT of [..., n, frames] as the `Grid` [..., kept, 2, columns, frames]."""

    inner: Tensor
    outer: Tensor

    def __init__(self, n: int) -> None:
        super().__init__()
        self.grid = grid = Grid(n)
        inner = _turns(-_outer(grid.kept, grid.rows, grid.rows))
        twiddle = _turns(-_outer(grid.kept, grid.columns, n))[:, None, :]
        outer = _as_real(twiddle * _turns(-_outer(grid.columns, grid.columns, grid.columns)))
        inner = torch.stack((inner.real, inner.imag), dim=1).flatten(0, 1)
        self.register_buffer("inner", inner.float(), persistent=False)
        self.register_buffer("outer", outer.float(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the spectra of the signals along the last but one axis."""
        grid, frames = self.grid, x.shape[-1]
        by_k1 = self.inner @ x.reshape(*x.shape[:-2], grid.rows, grid.columns * frames)
        parts = by_k1.reshape(*x.shape[:-2], grid.kept, 2 * grid.columns, frames)
        return (self.outer @ parts).unflatten(-2, (2, grid.columns))


class InverseRealDFT(nn.Module):
    """The inverse DFT, from the `Grid` [..., kept, 2, columns, frames] to [..., n, frames].

    The imaginary parts of the bins 0 and n / 2 make no difference, as in `torch.fft.irfft`.
    """

    inner: Tensor
    outer: Tensor

    def __init__(self, n: int) -> None:
        super().__init__()
        self.grid = grid = Grid(n)
        twiddle = _turns(_outer(grid.kept, grid.columns, n))[:, :, None]
        outer = _as_real(twiddle * _turns(_outer(grid.columns, grid.columns, grid.columns)))
        k1 = torch.arange(grid.kept)
        # The conjugates that the grid leaves out add the same once more.
        weight = torch.where((k1 == 0) | (2 * k1 == grid.rows), 1.0, 2.0).double() / n
        inner = weight * _turns(_outer(grid.rows, grid.kept, grid.rows))
        inner = torch.stack((inner.real, -inner.imag), dim=2).flatten(1)
        self.register_buffer("inner", inner.float(), persistent=False)
        self.register_buffer("outer", outer.float(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the signals of the spectra."""
        grid, frames = self.grid, x.shape[-1]
        parts = self.outer @ x.flatten(-3, -2)
        by_k1 = parts.reshape(*x.shape[:-4], 2 * grid.kept, grid.columns * frames)
        return (self.inner @ by_k1).reshape(*x.shape[:-4], grid.n, frames)
