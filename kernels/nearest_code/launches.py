"""Plan the launches of a search from shapes alone: two for few rows, three for many."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..launch import Launch, power_of_two
from .decisions import decide
from .halves import split
from .scores import error_bound, nominate
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
        share: tiles of codes that one of them takes.
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
    share: int
    many: bool

    @staticmethod
    def of(rows: int, dim: int, codes: int) -> Tiling:
        """Return the tiling of a search, a function of its shapes alone."""
        chunk, chunks = chunks_of(dim)
        tiles, many = -(-codes // CODES), rows >= FEW
        shares = 1 if many else min(16, power_of_two(tiles))
        return Tiling(
            rows=rows,
            codes=codes,
            dim=dim,
            chunk=chunk,
            chunks=chunks,
            wide=max(16, power_of_two(dim)),
            tiles=tiles,
            shares=shares,
            share=-(-tiles // shares),
            many=many,
        )


class Halves(NamedTuple):
    """The rows that `split` leaves for `nominate`.

    Attributes:
        halves: float16 [rows, 2, dim padded], the rows split in two.
        score_factor: [rows], the factor that their scores lack.
    """

    halves: Tensor
    score_factor: Tensor


class Nominations(NamedTuple):
    """The scores that `nominate` leaves for `decide`.

    Attributes:
        best: [rows, shares, SLOTS], the best score of each slot.
        best_tile: int32 [rows, shares, SLOTS], its tile.
        runner_up: [rows, shares], the best score that no slot kept.
    """

    best: Tensor
    best_tile: Tensor
    runner_up: Tensor


def plan(x: Tensor, table: Table, found: Tensor) -> list[Launch]:
    """Return the launches that write the index of each row of x (contiguous) to `found`."""
    tiling = Tiling.of(len(x), x.shape[1], len(table.codes))
    places = (tiling.rows, tiling.shares, SLOTS)
    nominations = Nominations(
        best=torch.empty(places, device=x.device),
        best_tile=torch.empty(places, dtype=torch.int32, device=x.device),
        runner_up=torch.empty(places[:2], device=x.device),
    )
    decided = _decide(x, table, found, tiling, nominations)
    if not tiling.many:
        return [_nominate(x, None, table, tiling, nominations), decided]
    depth = tiling.chunk * tiling.chunks
    halves = Halves(
        halves=torch.empty((tiling.rows, 2, depth), dtype=torch.float16, device=x.device),
        score_factor=torch.empty(tiling.rows, device=x.device),
    )
    return [
        _split(x, table, tiling, halves),
        _nominate(halves.halves, halves.score_factor, table, tiling, nominations),
        decided,
    ]


def _split(x: Tensor, table: Table, tiling: Tiling, halves: Halves) -> Launch:
    rows = 4096 // tiling.wide
    return Launch(
        split,
        (-(-tiling.rows // rows),),
        {
            "x_ptr": x,
            "exponent_and_reach_ptr": table.exponent_and_reach,
            "halves_ptr": halves.halves,
            "score_factor_ptr": halves.score_factor,
            "rows": tiling.rows,
        },
        {
            "DIM": tiling.dim,
            "DEPTH": tiling.chunk * tiling.chunks,
            "WIDE": tiling.wide,
            "ROWS": rows,
        },
    )


def _nominate(
    x: Tensor,
    score_factor: Tensor | None,
    table: Table,
    tiling: Tiling,
    nominations: Nominations,
) -> Launch:
    """Return the launch for rows, or for their halves with a score factor."""
    rows = 128 if tiling.many else 64
    return Launch(
        nominate,
        (-(-tiling.rows // rows), tiling.shares),
        {
            "x_ptr": x,
            "exponent_and_reach_ptr": table.exponent_and_reach,
            "score_factor_ptr": score_factor,
            "codes_ptr": table.halves,
            "offset_ptr": table.offsets,
            "best_ptr": nominations.best,
            "tile_ptr": nominations.best_tile,
            "runner_up_ptr": nominations.runner_up,
            "rows": tiling.rows,
            "tiles": tiling.tiles,
            "share": tiling.share,
        },
        {
            "DIM": tiling.dim,
            "CHUNK": tiling.chunk,
            "CHUNKS": tiling.chunks,
            "ROWS": rows,
            "CODES": CODES,
            "GROUP": GROUP,
            "SHARES": tiling.shares,
            "SPLIT": score_factor is not None,
        },
        warps=8 if tiling.many else 4,
        stages=3 if tiling.chunks == 1 else 2,
        products="half",
        wide=128,
    )


def _decide(
    x: Tensor, table: Table, found: Tensor, tiling: Tiling, nominations: Nominations
) -> Launch:
    # Rows of one program that distances must decide wait for each other: few rows are spread out.
    rows = min(32, 1024 // tiling.wide) if tiling.many else 4
    return Launch(
        decide,
        (-(-tiling.rows // rows),),
        {
            "x_ptr": x,
            "codebook_ptr": table.codes,
            "exponent_and_reach_ptr": table.exponent_and_reach,
            "best_ptr": nominations.best,
            "tile_ptr": nominations.best_tile,
            "runner_up_ptr": nominations.runner_up,
            "found_ptr": found,
            "rows": tiling.rows,
            "codes": tiling.codes,
            "share": tiling.share,
        },
        {
            "DIM": tiling.dim,
            "WIDE": tiling.wide,
            "ROWS": rows,
            "STEP": 2048 // tiling.wide,
            "CODES": CODES,
            "GROUP": GROUP,
            "SHARES": tiling.shares,
            **error_bound(tiling.chunk, tiling.chunks),
        },
        registers=128,  # four programs; ptxas would spill to fit a fifth
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
        (1000, 8192, 32, torch.bfloat16),
        (1000, 8192, 64, torch.float32),
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
