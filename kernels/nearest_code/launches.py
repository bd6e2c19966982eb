"""Plan the four launches of a search from shapes alone."""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
from torch import Tensor

from ..launch import Launch
from .distances import decide, settle
from .scores import error_bound, nominate, split
from .table import CODES, GROUP, SLOTS, Table, build_table, chunks_of

FEW = 16384
"""Fewer rows make too few tiles of rows for a device: then the codes are shared out as well."""


class Tiling(NamedTuple):
    """The division of a search into programs.

    Attributes:
        rows: vectors to search for.
        codes: vectors in the codebook.
        dim: numbers in a vector.
        chunk: numbers of a vector that one step multiplies.
        chunks: steps for a vector.
        wide: `dim` filled up to a power of two.
        tiles: tiles of codes.
        shares: programs that share the tiles of codes, for one tile of rows.
        many: there are `FEW` rows or more.
    """

    rows: int
    codes: int
    dim: int
    chunk: int
    chunks: int
    wide: int
    tiles: int
    shares: int
    many: bool

    @staticmethod
    def of(rows: int, dim: int, codes: int) -> Tiling:
        """Return the tiling of a search, a function of its shapes alone."""
        chunk, chunks = chunks_of(dim)
        tiles, many = -(-codes // CODES), rows >= FEW
        return Tiling(
            rows=rows,
            codes=codes,
            dim=dim,
            chunk=chunk,
            chunks=chunks,
            wide=max(16, triton.next_power_of_2(dim)),
            tiles=tiles,
            shares=1 if many else min(16, triton.next_power_of_2(tiles)),
            many=many,
        )


class Scratch(NamedTuple):
    """The memory in which a launch leaves its results for the next ones.

    Attributes:
        halves: float16 [rows, 2, dim padded], the rows split in two; from `split`.
        score_factor: [rows], the factor that their scores lack; from `split`.
        best: [rows, shares, SLOTS], the best score of each slot; from `nominate`.
        best_tile: int32 [rows, shares, SLOTS], its tile; from `nominate`.
        runner_up: [rows, shares], the best score that no slot kept; from `nominate`.
        threshold: [rows], the lowest score that is still in question; from `decide`.
    """

    halves: Tensor
    score_factor: Tensor
    best: Tensor
    best_tile: Tensor
    runner_up: Tensor
    threshold: Tensor

    @staticmethod
    def of(tiling: Tiling, device: torch.device) -> Scratch:
        """Allocate it."""

        def empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.empty(shape, dtype=dtype, device=device)

        return Scratch(
            halves=empty(tiling.rows, 2, tiling.chunk * tiling.chunks, dtype=torch.float16),
            score_factor=empty(tiling.rows),
            best=empty(tiling.rows, tiling.shares, SLOTS),
            best_tile=empty(tiling.rows, tiling.shares, SLOTS, dtype=torch.int32),
            runner_up=empty(tiling.rows, tiling.shares),
            threshold=empty(tiling.rows),
        )


def plan(x: Tensor, table: Table, found: Tensor) -> list[Launch]:
    """Return the launches that write the index of each row of x (contiguous) to `found`."""
    tiling = Tiling.of(len(x), x.shape[1], len(table.codes))
    scratch = Scratch.of(tiling, x.device)
    return [
        _split(x, table, tiling, scratch),
        _nominate(table, tiling, scratch),
        _decide(x, table, found, tiling, scratch),
        _settle(x, table, found, tiling, scratch),
    ]


def _split(x: Tensor, table: Table, tiling: Tiling, scratch: Scratch) -> Launch:
    rows = 4096 // tiling.wide
    return Launch(
        split,
        (-(-tiling.rows // rows),),
        {
            "x_ptr": x,
            "exponent_and_reach_ptr": table.exponent_and_reach,
            "halves_ptr": scratch.halves,
            "score_factor_ptr": scratch.score_factor,
            "rows": tiling.rows,
        },
        {
            "DIM": tiling.dim,
            "DEPTH": tiling.chunk * tiling.chunks,
            "WIDE": tiling.wide,
            "ROWS": rows,
        },
    )


def _nominate(table: Table, tiling: Tiling, scratch: Scratch) -> Launch:
    rows = 128 if tiling.many else 64
    return Launch(
        nominate,
        (-(-tiling.rows // rows), tiling.shares),
        {
            "x_ptr": scratch.halves,
            "score_factor_ptr": scratch.score_factor,
            "codes_ptr": table.halves,
            "offset_ptr": table.offsets,
            "best_ptr": scratch.best,
            "tile_ptr": scratch.best_tile,
            "runner_up_ptr": scratch.runner_up,
            "rows": tiling.rows,
            "tiles": tiling.tiles,
            "share": -(-tiling.tiles // tiling.shares),
        },
        {
            "CHUNK": tiling.chunk,
            "CHUNKS": tiling.chunks,
            "ROWS": rows,
            "CODES": CODES,
            "GROUP": GROUP,
            "SHARES": tiling.shares,
        },
        warps=8 if tiling.many else 4,
        stages=3 if tiling.chunks == 1 else 2,
        products="half",
        wide=128,
    )


def _decide(x: Tensor, table: Table, found: Tensor, tiling: Tiling, scratch: Scratch) -> Launch:
    rows = min(64, 2048 // tiling.wide) if tiling.many else 8
    return Launch(
        decide,
        (-(-tiling.rows // rows),),
        {
            "x_ptr": x,
            "codebook_ptr": table.codes,
            "exponent_and_reach_ptr": table.exponent_and_reach,
            "best_ptr": scratch.best,
            "tile_ptr": scratch.best_tile,
            "runner_up_ptr": scratch.runner_up,
            "found_ptr": found,
            "threshold_ptr": scratch.threshold,
            "rows": tiling.rows,
            "codes": tiling.codes,
        },
        {
            "DIM": tiling.dim,
            "WIDE": tiling.wide,
            "ROWS": rows,
            "CODES": CODES,
            "GROUP": GROUP,
            "SHARES": tiling.shares,
            **error_bound(tiling.chunk, tiling.chunks),
        },
    )


def _settle(x: Tensor, table: Table, found: Tensor, tiling: Tiling, scratch: Scratch) -> Launch:
    rows = 128 if tiling.many else 8
    return Launch(
        settle,
        (-(-tiling.rows // rows),),
        {
            "x_ptr": x,
            "codebook_ptr": table.codes,
            "best_ptr": scratch.best,
            "tile_ptr": scratch.best_tile,
            "threshold_ptr": scratch.threshold,
            "found_ptr": found,
            "rows": tiling.rows,
            "codes": tiling.codes,
        },
        {
            "DIM": tiling.dim,
            "WIDE": tiling.wide,
            "ROWS": rows,
            "STEP": 8192 // tiling.wide,
            "CODES": CODES,
            "GROUP": GROUP,
            "WIDTH": tiling.shares * SLOTS,
        },
        warps=16,
        registers=128,  # all that 512 threads can have; ptxas would spill to fit a second block
    )


def shipped() -> dict[str, Launch]:
    """Return launches by configuration: the codebook that ships (8192 x 8), and the benchmarks'."""
    launches = {}
    for rows, codes, dim, dtype in (
        (12, 8192, 8, torch.float32),
        (1000, 8192, 8, torch.float32),
        (131072, 8192, 8, torch.float32),
        (12, 8192, 32, torch.float32),
        (1000, 8192, 32, torch.float32),
        (131072, 8192, 32, torch.float32),
        (131072, 8192, 32, torch.float16),
        (131072, 8192, 32, torch.bfloat16),
        (131072, 65536, 8, torch.float32),
        (131072, 65536, 64, torch.float32),
        (131072, 65536, 256, torch.float32),
        (1000, 65536, 256, torch.float32),
        (131072, 8192, 20, torch.float32),
        (1000, 8192, 20, torch.float32),
        (131072, 1024, 128, torch.float32),
    ):
        x = torch.empty(rows, dim, dtype=dtype, device="meta")
        table = build_table(torch.empty(codes, dim, dtype=dtype, device="meta"))
        found = torch.empty(rows, dtype=torch.int32, device="meta")
        name = f"{rows} x {codes} x {dim} {str(dtype).removeprefix('torch.')}"
        for step in plan(x, table, found):
            launches[f"{step.name} {name}"] = step
    return launches
