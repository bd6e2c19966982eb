"""The sizes of a convolution, and the sizes into which its output is cut."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from ..launch import power_of_two

ROOMY = 200 * 1024
"""The bytes of shared memory with which a program can take a tile of 128 by 128."""
MOST_NORMED = 128
"""The most channels that a norm behind a convolution can have: a program needs all of them."""


def tile_of(columns: int) -> int:
    """Return the columns of a program, to a multiple of which those of a matrix are filled up."""
    return min(MOST_NORMED, max(32, power_of_two(columns)))


def width_of(channels: int) -> int:
    """Return the channels of a position in halves, with those that fill them up."""
    return -(-channels // 32) * 32


@dataclass(frozen=True)
class Layer:
    """The sizes of a convolution.

    Attributes:
        channels: of the input.
        columns: channels of the output, at all places of an upsampled position.
        kernel: (rows, steps).
        stride: (rows, steps).
        padding: rows of zeros above and below. Steps are padded before.
        up: (rows, steps) of the output for each position.
        halves: whether the input is in halves.
    """

    channels: int
    columns: int
    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: int = 0
    up: tuple[int, int] = (1, 1)
    halves: bool = True

    @cached_property
    def width(self) -> int:
        """Return the channels of a position of the input in memory."""
        return width_of(self.channels) if self.halves else self.channels

    @cached_property
    def depth(self) -> int:
        """Return how many products are summed up before the sum is closed."""
        run = self.kernel[1] * self.width
        if self.halves:
            return 64 if run % 64 == 0 else 32
        return 16 if run <= 16 else 32

    @cached_property
    def products(self) -> int:
        """Return how many times `depth` products there are."""
        return self.kernel[0] * -(-(self.kernel[1] * self.width) // self.depth)


@dataclass(frozen=True)
class Tiling:
    """The sizes into which an output is cut. They do not change its bits.

    Attributes:
        positions: of a program.
        columns: of a program.
        warps: of a program.
        stages: of its pipeline.
        shared: bytes of shared memory that a device must have; 0 where any has enough.
    """

    positions: int
    columns: int
    warps: int
    stages: int
    shared: int = 0

    @staticmethod
    def of(layer: Layer, roomy: bool) -> Tiling:
        """Return the tiling for a device with `ROOMY` shared memory or less.

        A program takes all columns where they are few, so that a norm can follow.
        """
        columns = tile_of(layer.columns)
        if columns < 64:
            return Tiling(128, columns, 4, 3 if layer.depth == 32 else 2)
        if not roomy or not layer.halves:
            return Tiling(64, columns, 8, 2)
        return Tiling(128, columns, 8, 2, ROOMY)
