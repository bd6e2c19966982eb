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


class Cut(NamedTuple):
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
    def of(rows: int, dim: int, codes: int) -> Cut:
        """Return the cut of a search, a function of its shapes alone."""
        chunk, chunks = chunks_of(dim)
        tiles, many = -(-codes // CODES), rows >= FEW
        return Cut(
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
        owed: [rows], the factor that their scores are short of; from `split`.
        best: [rows, shares, SLOTS], the best score of each slot; from `nominate`.
        best_tile: int32 [rows, shares, SLOTS], its tile; from `nominate`.
        runner_up: [rows, shares], the best score that no slot kept; from `nominate`.
        threshold: [rows], the lowest score that is still in question; from `decide`.
    """

    halves: Tensor
    owed: Tensor
    best: Tensor
    best_tile: Tensor
    runner_up: Tensor
    threshold: Tensor

    @staticmethod
    def of(cut: Cut, device: torch.device) -> Scratch:
        """Allocate it."""

        def empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.empty(shape, dtype=dtype, device=device)

        return Scratch(
            halves=empty(cut.rows, 2, cut.chunk * cut.chunks, dtype=torch.float16),
            owed=empty(cut.rows),
            best=empty(cut.rows, cut.shares, SLOTS),
            best_tile=empty(cut.rows, cut.shares, SLOTS, dtype=torch.int32),
            runner_up=empty(cut.rows, cut.shares),
            threshold=empty(cut.rows),
        )


def plan(x: Tensor, table: Table, found: Tensor) -> list[Launch]:
    """Return the launches that write the index of each row of x (contiguous) to `found`."""
    cut = Cut.of(len(x), x.shape[1], len(table.codes))
    left = Scratch.of(cut, x.device)
    return [
        _split(x, table, cut, left),
        _nominate(table, cut, left),
        _decide(x, table, found, cut, left),
        _settle(x, table, found, cut, left),
    ]


def _split(x: Tensor, table: Table, cut: Cut, left: Scratch) -> Launch:
    rows = 4096 // cut.wide
    return Launch(
        split,
        (-(-cut.rows // rows),),
        {
            "x_ptr": x,
            "facts_ptr": table.facts,
            "halves_ptr": left.halves,
            "owed_ptr": left.owed,
            "rows": cut.rows,
        },
        {
            "DIM": cut.dim,
            "DEPTH": cut.chunk * cut.chunks,
            "WIDE": cut.wide,
            "ROWS": rows,
        },
    )


def _nominate(table: Table, cut: Cut, left: Scratch) -> Launch:
    rows = 128 if cut.many else 64
    return Launch(
        nominate,
        (-(-cut.rows // rows), cut.shares),
        {
            "x_ptr": left.halves,
            "owed_ptr": left.owed,
            "codes_ptr": table.halves,
            "offset_ptr": table.offsets,
            "best_ptr": left.best,
            "tile_ptr": left.best_tile,
            "runner_up_ptr": left.runner_up,
            "rows": cut.rows,
            "tiles": cut.tiles,
            "share": -(-cut.tiles // cut.shares),
        },
        {
            "CHUNK": cut.chunk,
            "CHUNKS": cut.chunks,
            "ROWS": rows,
            "CODES": CODES,
            "GROUP": GROUP,
            "SHARES": cut.shares,
        },
        warps=8 if cut.many else 4,
        stages=3 if cut.chunks == 1 else 2,
        products="half",
        wide=128,
    )


def _decide(x: Tensor, table: Table, found: Tensor, cut: Cut, left: Scratch) -> Launch:
    rows = min(64, 2048 // cut.wide) if cut.many else 8
    return Launch(
        decide,
        (-(-cut.rows // rows),),
        {
            "x_ptr": x,
            "codebook_ptr": table.codes,
            "facts_ptr": table.facts,
            "best_ptr": left.best,
            "tile_ptr": left.best_tile,
            "runner_up_ptr": left.runner_up,
            "found_ptr": found,
            "threshold_ptr": left.threshold,
            "rows": cut.rows,
            "codes": cut.codes,
        },
        {
            "DIM": cut.dim,
            "WIDE": cut.wide,
            "ROWS": rows,
            "CODES": CODES,
            "GROUP": GROUP,
            "SHARES": cut.shares,
            **error_bound(cut.chunk, cut.chunks),
        },
    )


def _settle(x: Tensor, table: Table, found: Tensor, cut: Cut, left: Scratch) -> Launch:
    rows = 128 if cut.many else 8
    return Launch(
        settle,
        (-(-cut.rows // rows),),
        {
            "x_ptr": x,
            "codebook_ptr": table.codes,
            "best_ptr": left.best,
            "tile_ptr": left.best_tile,
            "threshold_ptr": left.threshold,
            "found_ptr": found,
            "rows": cut.rows,
            "codes": cut.codes,
        },
        {
            "DIM": cut.dim,
            "WIDE": cut.wide,
            "ROWS": rows,
            "STEP": 8192 // cut.wide,
            "CODES": CODES,
            "GROUP": GROUP,
            "WIDTH": cut.shares * SLOTS,
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
