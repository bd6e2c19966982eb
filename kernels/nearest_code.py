"""Nearest codebook entry: scores nominate, exact distances decide.

- `split` writes the rows as pairs of float16 and `nominate` streams the codebook past them on the
  tensor cores: see `kernels.code_scores`. Of 8 bytes a row and slot that it leaves behind,
- `decide` finds the groups of codes that are alive: their score is within the error of two scores,
  and the width of a tie, of the row's best. Where one group is alive, and float32 distances tell
  its nearest code apart, the row is done.
- `settle` measures all codes of the groups alive, or the whole codebook where even a runner-up is
  alive, and takes the lowest index within a tie: see `kernels.exact_distance`.
Of a thousand rows one or two are left to `settle`, unless codes are equal or nearly so. No kernel
uses float64. Distances must fit in float32; a row's index does not depend on the batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
import triton
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from melcap.kernels import launch
from melcap.kernels.code_scores import error_bound, nominate, split
from melcap.kernels.exact_distance import decide, settle
from melcap.kernels.launch import Launch
from melcap.ops import registry
from melcap.ops.reference import TIE

CODES = 128
"""Codes in a tile."""
GROUP = 8
"""Codes of a tile that are nominated together."""
SLOTS = CODES // GROUP
FEW = 16384
"""Fewer rows make too few tiles of rows for a device: then the codes are shared out as well."""


@dataclass(frozen=True)
class Table:
    """A codebook as the kernels read it.

    codes: the codebook itself, contiguous.
    halves: float16 [codes padded to a tile, 2, dim padded to a chunk]; the largest number is scaled
        by a power of two to lie in [2^13, 2^14).
    offsets: -|c|^2 / 2 as scaled, float32 [codes padded]; -inf for padding, which never wins.
    facts: the scale's exponent, and the largest |c| as scaled; float32 [2].
    """

    codes: Tensor
    halves: Tensor
    offsets: Tensor
    facts: Tensor


_tables: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def table(codebook: Tensor) -> Table:
    """The codebook's table, computed again when the codebook has changed in place.

    Changes through `.data` go unseen, as everywhere in PyTorch. Tensors that were made under
    `torch.inference_mode` have no version: their table is computed for every call.
    """
    if codebook.is_inference():
        return build_table(codebook)
    known = _tables.get(codebook)
    if known is None or known[0] != (codebook._version, codebook.data_ptr()):
        known = (codebook._version, codebook.data_ptr()), build_table(codebook)
        _tables[codebook] = known
    found: Table = known[1]
    return found


def build_table(codebook: Tensor) -> Table:
    """See `Table`; in float64, rounded once."""
    codes = codebook.detach().double()
    exponent = (14 - torch.frexp(codes.abs().amax()).exponent).clamp(-126, 126)
    codes = torch.ldexp(codes, exponent)
    padding = -len(codes) % CODES
    offsets = F.pad(codes.square().sum(1) / -2, (0, padding), value=-torch.inf)
    facts = torch.stack((exponent.double(), codes.norm(dim=1).amax()))
    chunk, chunks = _chunks(codes.shape[1])
    codes = F.pad(codes, (0, chunk * chunks - codes.shape[1], 0, padding))
    high = codes.half()
    halves = torch.stack((high, (codes - high.double()).half()), dim=1)
    return Table(codebook.detach().contiguous(), halves, offsets.float(), facts.float())


def _chunks(dim: int) -> tuple[int, int]:
    """How much of dim a step multiplies, and in how many steps."""
    chunk = 16 if dim <= 16 else 32
    return chunk, -(-dim // chunk)


def plan(x: Tensor, codebook: Table, found: Tensor) -> list[Launch]:
    """The launches that write the index of each row of x (contiguous) to `found`."""
    rows, dim = x.shape
    codes = len(codebook.codes)
    chunk, chunks = _chunks(dim)
    depth, wide = chunk * chunks, max(16, triton.next_power_of_2(dim))
    tiles = -(-codes // CODES)
    many = rows >= FEW
    shares = 1 if many else min(16, triton.next_power_of_2(tiles))

    def buffer(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=x.device)

    halves, owed = buffer(rows, 2, depth, dtype=torch.float16), buffer(rows)
    best = buffer(rows, shares, SLOTS)
    best_tile = buffer(rows, shares, SLOTS, dtype=torch.int32)
    runner_up, threshold = buffer(rows, shares), buffer(rows)
    tiling = {"CODES": CODES, "GROUP": GROUP}

    def step(
        kernel: Any, tile: int, arguments: dict[str, Any], constants: dict[str, Any], **options: Any
    ) -> Launch:
        grid = (-(-rows // tile), shares) if kernel is nominate else (-(-rows // tile),)
        return Launch(
            kernel, grid, arguments | {"rows": rows}, constants | {"ROWS": tile}, **options
        )

    return [
        step(
            split,
            4096 // wide,
            {"x_ptr": x, "facts_ptr": codebook.facts, "halves_ptr": halves, "owed_ptr": owed},
            {"DIM": dim, "DEPTH": depth, "WIDE": wide},
        ),
        step(
            nominate,
            128 if many else 64,
            {
                "x_ptr": halves,
                "owed_ptr": owed,
                "codes_ptr": codebook.halves,
                "offset_ptr": codebook.offsets,
                "best_ptr": best,
                "tile_ptr": best_tile,
                "runner_up_ptr": runner_up,
                "tiles": tiles,
                "share": -(-tiles // shares),
            },
            {"CHUNK": chunk, "CHUNKS": chunks, "SHARES": shares, **tiling},
            warps=8 if many else 4,
            stages=3 if chunks == 1 else 2,
            products="half",
            wide=128,
        ),
        step(
            decide,
            min(64, 2048 // wide) if many else 8,
            {
                "x_ptr": x,
                "codebook_ptr": codebook.codes,
                "facts_ptr": codebook.facts,
                "best_ptr": best,
                "tile_ptr": best_tile,
                "runner_up_ptr": runner_up,
                "found_ptr": found,
                "threshold_ptr": threshold,
                "codes": codes,
            },
            {
                "DIM": dim,
                "WIDE": wide,
                "SHARES": shares,
                **tiling,
                **error_bound(chunk, chunks),
            },
        ),
        step(
            settle,
            128 if many else 8,
            {
                "x_ptr": x,
                "codebook_ptr": codebook.codes,
                "best_ptr": best,
                "tile_ptr": best_tile,
                "threshold_ptr": threshold,
                "found_ptr": found,
                "codes": codes,
            },
            {
                "DIM": dim,
                "WIDE": wide,
                "STEP": 8192 // wide,
                "WIDTH": shares * SLOTS,
                **tiling,
            },
            warps=16,
            registers=128,  # all that 512 threads can have; ptxas would spill to fit a second block
        ),
    ]


def nearest_code(x: Tensor, codebook: Tensor) -> Tensor:
    """See `melcap.ops.nearest_code`."""
    found = torch.empty(len(x), dtype=torch.int32, device=x.device)
    if len(x):
        for step in plan(x.contiguous(), table(codebook), found):
            launch.run(step)
    return found


def unsupported(x: Tensor, codebook: Tensor) -> list[str]:
    """Why the kernels cannot run on these tensors; [] if they can."""
    reasons: list[str] = launch.out_of_reach(x, codebook)
    if x.device != codebook.device:
        reasons.append(f"x is on {x.device} and the codebook on {codebook.device}")
    if not 1 <= x.shape[1] <= 256:
        reasons.append(f"vectors of 1 to 256 numbers are compared, not of {x.shape[1]}")
    if len(codebook) > 2**20:
        reasons.append(f"a codebook may have 2^20 codes, not {len(codebook)}")
    return reasons


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
        codebook = build_table(torch.empty(codes, dim, dtype=dtype, device="meta"))
        found = torch.empty(rows, dtype=torch.int32, device="meta")
        name = f"{rows} x {codes} x {dim} {str(dtype).removeprefix('torch.')}"
        for step in plan(x, codebook, found):
            launches[f"{step.name} {name}"] = step
    return launches


registry.register(
    "nearest_code",
    "triton",
    registry.Implementation(
        nearest_code,
        dict.fromkeys(
            (torch.float32, torch.float16, torch.bfloat16), registry.Tolerance(atol=0.0, rtol=TIE)
        ),
        unsupported,
    ),
)
