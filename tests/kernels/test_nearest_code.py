"""Check that Triton's nearest_code gives the lowest index within a tie, by float64.

These tests cannot notice offsets of 32 bits (they need gigabytes: a test on the device has them),
NaN taken for a score that is out of question and a score factor beyond 2^127 (overflow, where
measuring more is never wrong), a limit that is too wide (slower and not wrong), masks after another
mask, and smaller terms inside a bound that has room for them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

import melcap
from melcap import ops
from melcap.codec import Codec
from melcap.ops import registry
from tests.helpers import examples, noise

triton = pytest.importorskip("triton")
launch = pytest.importorskip("melcap.kernels.launch")
pytest.importorskip("melcap.kernels.nearest_code")

import triton.language as tl  # noqa: E402

from melcap.kernels import weight_cache  # noqa: E402
from melcap.kernels.nearest_code import launches, shipped  # noqa: E402
from melcap.kernels.nearest_code import table as tables  # noqa: E402
from melcap.kernels.nearest_code.candidates import Nominated  # noqa: E402
from melcap.kernels.nearest_code.decisions import narrowed  # noqa: E402
from melcap.kernels.nearest_code.distances import Codebook  # noqa: E402

gpu = pytest.mark.gpu
IMPOSSIBLE, GUARD = -7, 4096
KERNELS = ("split", "nominate", "decide")


@pytest.fixture(autouse=True)
def _poison(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fill new memory with NaN or an impossible index; check that nothing is written after it."""
    empty, guards = torch.empty, []

    def poisoned(*shape: Any, **options: Any) -> Tensor:
        size = empty(*shape, device="meta").shape
        whole = empty(size.numel() + GUARD, **options)
        whole.fill_(torch.nan if whole.is_floating_point() else IMPOSSIBLE)
        if whole.device.type != "meta":
            guards.append(whole[-GUARD:])
        return whole[:-GUARD].view(size)

    monkeypatch.setattr(torch, "empty", poisoned)
    yield
    for guard in guards:
        untouched = guard.isnan() if guard.is_floating_point() else guard == IMPOSSIBLE
        assert untouched.all(), "written after the end"


def brute(x: Tensor, codebook: Tensor) -> Tensor:
    """Return the lowest index within 1e-6 of the nearest, by all distances in float64."""
    codes, found = codebook.double(), []
    for rows in x.double().split(max(1, 2**24 // codebook.numel())):
        distances = (rows[:, None] - codes).norm(dim=2)
        tied = distances <= distances.min(dim=1, keepdim=True).values * (1 + 1e-6)
        found.append(tied.int().argmax(dim=1).int())
    return torch.cat(found) if found else torch.zeros(0, dtype=torch.int32, device=x.device)


def by_triton(x: Tensor, codebook: Tensor) -> Tensor:
    """Run it on the triton backend and check that each kernel ran once, `split` for many rows."""
    before = launch.launched.copy()
    with melcap.use_backend("triton"):
        found = ops.nearest_code(x, codebook)
    ran = {name: launch.launched[name] - before[name] for name in KERNELS}
    some, many = int(len(x) > 0), int(len(x) >= max(launches.FEW, 1))
    assert ran == {"split": many, "nominate": some, "decide": some}
    assert found.dtype == torch.int32
    return found


def check(x: Tensor, codebook: Tensor) -> None:
    found, expected = by_triton(x, codebook), brute(x, codebook)
    wrong = (found != expected).nonzero().flatten()
    assert not len(wrong), (
        f"{len(wrong)} of {len(x)} rows, first {int(wrong[0])}: "
        f"{int(found[wrong[0]])} for {int(expected[wrong[0]])}"
    )


# ---- the steps by themselves: what they get wrong, exact distances would put right, but slowly


@triton.jit
def narrow(
    x_ptr,
    codebook_ptr,
    exponent_and_reach_ptr,
    best_ptr,
    tile_ptr,
    runner_up_ptr,
    found_ptr,
    threshold_ptr,
    rows,
    codes,
    share,
    DIM: tl.constexpr,
    WIDE: tl.constexpr,
    ROWS: tl.constexpr,
    CODES: tl.constexpr,
    GROUP: tl.constexpr,
    SHARES: tl.constexpr,
    PRODUCT_ERROR: tl.constexpr,
    SQUARE_ERROR: tl.constexpr,
    PLACE_ERROR: tl.constexpr,
):
    """Write what `decide` knows before it measures exactly: -1 for rows that are not clear."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = row < rows
    place = tl.arange(0, WIDE)
    mask = inside[:, None] & (place < DIM)[None, :]
    x = tl.load(x_ptr + row[:, None] * DIM + place[None, :], mask=mask, other=0.0).to(tl.float32)
    found, clear, threshold = narrowed(
        x,
        row,
        inside,
        Nominated(best_ptr, tile_ptr, runner_up_ptr, share),
        Codebook(codebook_ptr, codes),
        exponent_and_reach_ptr,
        DIM,
        WIDE,
        ROWS,
        CODES,
        GROUP,
        SHARES,
        PRODUCT_ERROR,
        SQUARE_ERROR,
        PLACE_ERROR,
    )
    tl.store(found_ptr + row, tl.where(clear, found, -1), mask=inside)
    tl.store(threshold_ptr + row, threshold, mask=inside)


def nominated(x: Tensor, codebook: Tensor) -> tuple[dict[str, Any], launch.Launch]:
    """Return what `nominate` was given and has left, by parameter, and the launch that follows."""
    found = torch.empty(len(x), dtype=torch.int32, device=x.device)
    *first, last = launches.plan(x, tables.table_of(codebook), found)
    for step in first:
        launch.run(step)
    return dict(first[-1].arguments), last


def steps_of(x: Tensor, codebook: Tensor) -> dict[str, Any]:
    """Return what the kernels leave until rows are measured exactly, by parameter."""
    left, last = nominated(x, codebook)
    left |= last.arguments | {"threshold_ptr": torch.empty(len(x), device=x.device)}
    arguments = {name: left[name] for name in narrow.arg_names if name in left}
    constants = {name: value for name, value in last.constants.items() if name != "STEP"}
    launch.run(dataclasses.replace(last, kernel=narrow, arguments=arguments, constants=constants))
    return left


def in_float64(x: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return scores [rows, codes padded], their error and squared nearest distances [rows].

    All of them are scaled; the error is that of `kernels.nearest_code.scores`.
    """
    table = tables.table_of(codebook)
    power, reach = table.exponent_and_reach.double()
    rows, codes = x.double() * 2**power, codebook.double() * 2**power
    scores = rows @ codes.t() - codes.square().sum(1) / 2
    squares = (rows.square().sum(1) - 2 * scores.amax(1)).clamp(min=0)
    scores = F.pad(scores, (0, len(table.offsets) - len(codes)), value=-torch.inf)
    unit, depth, norm = 2.0**-23, table.halves.shape[2], rows.norm(dim=1)
    sums = (1 + 2**-10) * 17 / 16 if depth <= 32 else 51 / 16
    error = (sums * depth + 7) * unit * norm * reach + unit * (norm * reach + reach**2)
    return scores, error + 2.0**-14 * depth**0.5 * (norm + reach), squares


def bounds_used(x: Tensor, codebook: Tensor) -> tuple[float, Tensor]:
    """Return the shares of two bounds that are used up; they must not exceed 1.

    The first is that of their error bound that nominations use. The others [rows] are those of the
    width within which groups are alive that error and tie need.
    """
    left, (scores, error, squares) = steps_of(x, codebook), in_float64(x, codebook)
    width = left["best_ptr"].double().amax((1, 2)) - left["threshold_ptr"].double()
    peaks = scores.unflatten(1, (-1, tables.GROUP, tables.SLOTS)).amax(2)
    used = []
    for share in range(left["best_ptr"].shape[1]):
        best, tile, runner_up = (left[f"{k}_ptr"][:, share] for k in ("best", "tile", "runner_up"))
        start = share * left["share"]
        part = F.pad(peaks[:, start : start + left["share"]], (0, 0, 0, 2), value=-torch.inf)
        first, second = part.topk(2, dim=1).values.unbind(1)
        tile = torch.where(first > -torch.inf, tile - start, 0)
        pairs = (best, first), (runner_up[:, None], second.amax(1, keepdim=True))
        named = part.gather(1, tile.long()[:, None])[:, 0]
        for value, expected in (*pairs, ((first + named) / 2, first)):
            off = torch.where(value == expected, 0.0, (value - expected).abs())
            used.append((off.amax(1) / error).max())
    return float(torch.stack(used).max()), (2 * error + 1e-6 * squares) / width


def drawn(rows: int, codes: int, dim: int) -> tuple[Tensor, Tensor]:
    """Return rows close to one of the random codes, and the codes; infinity follows in memory."""
    codebook = noise(codes, dim, seed=4)
    x = codebook[torch.arange(rows) * 7 % codes] + noise(rows, dim, seed=5) / 10
    infinity = torch.full((GUARD,), torch.inf)
    x, codebook = (
        torch.cat((part.flatten(), infinity))[:-GUARD].view_as(part) for part in (x, codebook)
    )
    return x, codebook


@pytest.mark.slow
@pytest.mark.parametrize("few", [0, launches.FEW])
@pytest.mark.parametrize(
    ("rows", "codes", "dim"),
    [(9, 100, 1), (67, 300, 12), (20, 2200, 20), (9, 700, 70), (12, 8192, 8)],
)
def test_scores_keep_their_bound_and_decide_allows_for_it(
    rows: int, codes: int, dim: int, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launches, "FEW", few)
    x, codebook = drawn(rows, codes, dim)
    x[0] = 0
    codebook[7] = 0
    x[1:5] *= torch.tensor([[1e-4], [300.0], [-3e5], [1e5]])
    x[4, 40:] *= 1e-6  # the last chunk alone would not tell how to scale this row
    for scale in (1.0, 1e-41):
        error, width = bounds_used(x * scale, codebook * scale)
        assert error <= 1
        assert width.min() > 0.85
        assert width.max() <= 1


@pytest.mark.parametrize("few", [0, launches.FEW])
@pytest.mark.parametrize(
    ("rows", "codes", "dim"), [(67, 300, 12), (20, 2200, 20), (9, 700, 70), (12, 8192, 8)]
)
def test_only_unclear_rows_are_measured_exactly(
    rows: int, codes: int, dim: int, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows with one nearest code are clear; others have two groups, or two tiles of a slot."""
    monkeypatch.setattr(launches, "FEW", few)
    x, codebook = drawn(rows, codes, dim)
    codebook[8], codebook[20 + 128] = codebook[3], codebook[20]
    x[0], x[1] = codebook[3], codebook[20]
    found = steps_of(x, codebook)["found_ptr"]
    assert found[:2].tolist() == [-1, -1]
    assert torch.equal(found[2:], brute(x[2:], codebook))


@pytest.mark.parametrize("dim", [8, 70])
@pytest.mark.parametrize("few", [0, launches.FEW])
@pytest.mark.parametrize(
    ("tied", "measured"),
    [
        ((533, 536), [slot + 512 + 16 * member for slot in (5, 8) for member in range(8)]),
        ((532, 532 + 128), list(range(512, 768))),  # one slot of a share, which has two tiles
    ],
)
def test_only_candidates_are_measured(
    tied: tuple[int, int], measured: list[int], few: int, dim: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All codes but the candidates become the row itself, after they have been nominated."""
    if few == 0 and len(measured) > 16:
        measured = list(range(2200))  # many rows have one share of all tiles
    monkeypatch.setattr(launches, "FEW", few)
    x, codebook = drawn(9, 2200, dim)
    codebook[tied[1]] = codebook[tied[0]]
    x[4] = codebook[tied[0]]
    _, last = nominated(x, codebook)
    others = torch.ones(2200, dtype=torch.bool)
    others[measured] = False
    codebook[others] = x[4].clone()
    launch.run(last)
    assert int(last.arguments["found_ptr"][4]) == tied[0]


# ---- any shape, any values


def planted(rows: int, codes: int, dim: int, seed: int, off: float) -> tuple[Tensor, Tensor]:
    """Return rows about midway between two codes, some copied: distances tie, or almost."""
    generator = torch.Generator().manual_seed(seed)
    codebook = torch.randn(codes, dim, generator=generator)
    copied = torch.rand(codes, generator=generator) < 0.2
    codebook[copied] = codebook[torch.randint(codes, (int(copied.sum()),), generator=generator)]
    x = torch.randn(rows, dim, generator=generator)
    midway = torch.rand(rows, generator=generator) < 0.6
    pair = torch.randint(codes, (2, int(midway.sum())), generator=generator)
    x[midway] = codebook[pair].mean(0) + off * torch.randn(pair.shape[1], dim, generator=generator)
    return x, codebook


@pytest.mark.slow
@settings(max_examples=examples(12))
@given(
    rows=st.integers(0, 9),
    codes=st.one_of(st.integers(1, 300), st.sampled_from([127, 128, 129])),
    dim=st.one_of(st.integers(1, 40), st.sampled_from([16, 17, 32, 33])),
    seed=st.integers(0, 2**32),
    off=st.integers(-8, -4),
    exponent=st.sampled_from([0, 0, -25, 25]),
    shift=st.sampled_from([0.0, 0.0, 100.0]),
)
@example(rows=3, codes=1, dim=1, seed=0, off=-5, exponent=0, shift=0.0)
@example(rows=18, codes=128, dim=16, seed=1, off=-3, exponent=-25, shift=0.0)
@example(rows=3, codes=129, dim=33, seed=2, off=-6, exponent=25, shift=0.0)
@example(rows=4, codes=127, dim=17, seed=3, off=-7, exponent=0, shift=100.0)
def test_is_its_definition(
    rows: int, codes: int, dim: int, seed: int, off: int, exponent: int, shift: float
) -> None:
    x, codebook = planted(rows, codes, dim, seed, 10.0**off)
    check((x + shift) * 10.0**exponent, (codebook + shift) * 10.0**exponent)


@pytest.mark.parametrize("dim", [100, 256])
def test_dim_in_chunks(dim: int) -> None:
    check(*planted(3, 140, dim, dim, 1e-6))


@pytest.mark.slow
def test_many_tiles_of_codes_in_every_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shares have two tiles and a part, some none; then one share has all tiles."""
    x, codebook = planted(7, 2700, 8, 3, 1e-6)
    x[:3] = codebook[[2699, 2048, 0]]
    check(x, codebook)
    monkeypatch.setattr(launches, "FEW", 0)
    check(x, codebook)
    x, codebook = noise(130, 8, seed=4), noise(300, 8, seed=5)
    codebook[[260, 41, 8]] = codebook[[7, 40, 200]]
    x[[5, 127, 128]] = codebook[[7, 40, 200]]  # measured exactly, as these codes are there twice
    check(x, codebook)


@pytest.mark.parametrize("few", [0, launches.FEW])
def test_the_codebook_that_ships(few: int, lite: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are close to a code of each tile, on codes, or midway between two."""
    monkeypatch.setattr(launches, "FEW", few)
    codebook = lite.codebook.vectors
    assert codebook.shape == (8192, 8)
    near = codebook[63::128] + noise(64, 8, seed=26, amplitude=float(codebook.std()) / 10)
    check(torch.cat((near, codebook[[0, 8191]], codebook[[5, 4100]].mean(0)[None])), codebook)


@pytest.mark.slow
def test_every_code_is_found() -> None:
    """Each code is its own nearest, whatever its tile, group and slot."""
    codebook = noise(133, 6, seed=1)
    assert torch.equal(by_triton(codebook, codebook), torch.arange(133, dtype=torch.int32))


# ---- ties


@pytest.mark.slow
@pytest.mark.parametrize(
    ("step", "tied"), [(0, True), (7, True), (8, True), (9, False), (11, False)]
)
def test_a_tie_is_within_a_millionth(step: int, tied: bool) -> None:
    """The distances 1 + step / 2^23 and 1 tie up to 8.4 steps, wherever the codes are.

    Each row has two codes at these distances; other rows and theirs are at least 3 away.
    """
    pairs = torch.tensor([(0, 1), (3, 19), (5, 133), (20, 160), (129, 140)])
    x = torch.zeros(5, 3)
    x[:, 0] = 4 * torch.arange(5)
    codebook = torch.tensor([1.00001, 0, 0]).repeat(161, 1)
    for column, code in enumerate(([0, 1 + step * 2.0**-23, 0], [0, 0, -1.0])):
        codebook[pairs[:, column]] = x + torch.tensor(code)
    expected = pairs[:, 0 if tied else 1].tolist()
    assert by_triton(x, codebook).tolist() == expected
    assert brute(x, codebook).tolist() == expected


@pytest.mark.slow
@pytest.mark.parametrize(
    ("at", "near", "far"), [(0, 1, -1), (4096, 4097, 4095), (1, -13 * 2.0**-31, 2)]
)
def test_a_tie_is_measured_far_beyond_float32(at: float, near: float, far: float) -> None:
    """Distances are 2^-bits more or less than a tie; float32 holds some differences, not all.

    Each row has two codes; other rows and theirs are at least 3 away, by the last number.
    """
    rows, codes, expected = [], [], []
    for bits in (24, 30, 36, 42, 48):
        for sign in (-1, 1):
            square = (1 + 1e-6 + sign * 2.0**-bits) ** 2 - (near - at) ** 2
            t = float(torch.tensor(square**0.5 * (1 - 1e-6)))  # in float32
            u = (square - t**2) ** 0.5
            apart = 4.0 * len(rows)
            expected.append(len(codes) + (sign > 0))
            rows.append([at, 0.0, 0.0, apart])
            codes += [[near, t, u, apart], [far, 0.0, 0.0, apart]]
    x, codebook = torch.tensor(rows), torch.tensor(codes)
    assert brute(x, codebook).tolist() == expected
    assert by_triton(x, codebook).tolist() == expected


@pytest.mark.slow
@pytest.mark.parametrize("dim", [8, 256])
@pytest.mark.parametrize("apart", [1, 16])
def test_ties_that_float32_takes_for_none(dim: int, apart: int) -> None:
    """Pairs around each row, in one group or two, have distances that differ by about a tie."""
    x, steps = 3 * noise(16, dim, seed=6, amplitude=1), noise(2, 16, dim, seed=7)
    steps = steps / steps.norm(dim=2, keepdim=True)
    steps[0] *= 1 + torch.linspace(0.9e-6, 1.1e-6, 16)[:, None]
    pairs = (x + steps).unflatten(1, (-1, apart)).movedim(0, 1)
    check(x if dim == 8 else x[::3], pairs.reshape(32, dim))


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1e5, 1e6])
def test_ties_of_rows_far_from_all_codes(scale: float) -> None:
    """A tie is then wider than what scores may err."""
    x, codebook = noise(5, 8, seed=8), noise(600, 8, seed=9)
    found = brute(x * scale, codebook)
    assert not torch.equal(found, torch.cdist(x.double() * scale, codebook.double()).argmin(1))
    check(x * scale, codebook)


@pytest.mark.slow
def test_ties_are_with_the_nearest_and_not_with_each_other() -> None:
    def of(*codes: float) -> int:
        column = torch.tensor(codes, dtype=torch.float32)[:, None]
        return int(by_triton(torch.zeros(1, 1), column))

    assert of(1, -1, 1) == 0
    assert of(2, 1, -1, 1) == 1
    assert of(1.00000155, 1.0000008, 1) == 1
    assert of(0, 0) == 0
    assert of(1e-30, 0) == 1  # nothing is within a fraction of zero
    assert of(1e-45, 0) == 1
    assert of(3e-45, 1e-45) == 1
    assert of(2e-41, 2.0001e-41) == 0


@pytest.mark.parametrize("few", [0, launches.FEW])
@pytest.mark.parametrize("tied", [(340, 209), (40, 40 + 128), (40, 41, 650)])
def test_silence_that_ties(
    tied: tuple[int, ...], few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All rows are equal and tie, in programs that are full and in one that is not."""
    monkeypatch.setattr(launches, "FEW", few)
    codebook = noise(700, 8, seed=27)
    codebook[list(tied)] = codebook[tied[0]].clone()
    x = codebook[tied[0]].expand(35, -1) + 1e-4
    assert by_triton(x, codebook).tolist() == [min(tied)] * 35


@pytest.mark.slow
@pytest.mark.parametrize("few", [0, launches.FEW])
def test_ties_in_one_slot(few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole share is measured where the runner-up of a slot ties."""
    monkeypatch.setattr(launches, "FEW", few)
    codebook = noise(700, 5, seed=2, amplitude=1)
    codebook[[17 + 16, 17 + 128, 17 + 512, 600]] = codebook[17].clone()
    for row in (codebook[17:18], codebook[17:18] + 1e-3):
        assert by_triton(row, codebook).tolist() == [17]
    codebook[[17 + 128, 17 + 256]] = codebook[17] / 9
    codebook[17] = codebook[17] / 9 * (1 + 5e-7)  # a little farther from zero, and first
    assert by_triton(torch.zeros(1, 5), codebook).tolist() == [17]
    check(noise(2, 5, seed=3), codebook[:1].expand(300, -1))


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_scores_that_cannot_tell_codes_apart(offset: float) -> None:
    """Codes are far from zero and close together, so exact distances must decide."""
    generator = torch.Generator().manual_seed(5)
    codebook = offset + 1e-3 * torch.randn(400, 4, generator=generator)
    check(codebook[100:104] + 1e-4 * torch.randn(4, 4, generator=generator), codebook)


# ---- magnitudes


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1e-42, 1e-38, 1e-30, 1e-19, 1e19, 1e30, 1e36])
def test_numbers_whose_squares_overflow_or_vanish(scale: float) -> None:
    x, codebook = noise(3, 8, seed=10), noise(100, 8, seed=11)
    check(x * scale, codebook * scale)
    check(x * scale, codebook)
    check(x, codebook * scale)


@pytest.mark.slow
def test_rows_and_codes_of_all_magnitudes() -> None:
    powers = 10.0 ** torch.arange(-40, 36, 6).double()
    x, codebook = noise(13, 4, seed=12).double(), noise(130, 4, seed=13).double()
    codebook[::10] *= powers[:, None]
    check((x * powers[:, None]).float(), codebook.float())
    check(torch.zeros(1, 4), torch.zeros(3, 4))


@pytest.mark.slow
def test_whatever_is_not_finite_still_gives_an_index() -> None:
    x = noise(5, 4, seed=14)
    x[0, 0], x[1, 2], x[2, 3] = torch.nan, torch.inf, -torch.inf
    codebook = noise(150, 4, seed=15)
    found = by_triton(x, codebook)
    assert torch.equal(found[3:], brute(x[3:], codebook))
    codebook[5, 0] = torch.nan
    for indices in (found, by_triton(x, codebook)):
        assert ((indices >= 0) & (indices < 150)).all()


# ---- layouts, dtypes, batches


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_any_layout_and_half_precision(dtype: torch.dtype) -> None:
    x = noise(9, 40, seed=16).to(dtype)
    codebook = noise(9, 260, seed=17).to(dtype)
    check(x.t()[3:, 1:8], codebook.t()[5::2, 1:8])
    check(x.t()[::3], codebook.t())
    check(x.float().t()[:2], codebook.t())
    check(x[:1].t()[:5].expand(-1, 3), codebook.t()[:, :3])
    flat = torch.arange(64, dtype=torch.float32).div(7).sin().to(dtype)
    check(flat[1:31].view(10, 3), flat[2:32].view(10, 3))


@pytest.mark.slow
def test_a_row_is_the_same_alone_and_in_any_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    x, codebook = planted(12, 200, 8, 18, 1e-7)
    together = by_triton(x, codebook)
    assert torch.equal(by_triton(x.flip(0), codebook), together.flip(0))
    alone = [int(by_triton(x[i : i + 1], codebook)) for i in range(0, 12, 3)]
    assert alone == together[::3].tolist()
    monkeypatch.setattr(launches, "FEW", 0)  # the tiling of many rows
    batch = torch.cat((x[:6], noise(120, 8, seed=19), x))
    found = by_triton(batch, codebook)
    assert torch.equal(found[:6], together[:6])
    assert torch.equal(found[126:], together)


# ---- the table


def test_a_changed_codebook_is_noticed() -> None:
    codebook = noise(20, 4, seed=19)
    x = codebook[[4]].clone()
    assert int(by_triton(x, codebook)) == 4
    kept = tables.table_of(codebook)
    assert tables.table_of(codebook) is kept
    codebook[4] += 1
    codebook[11] = x[0]
    assert int(by_triton(x, codebook)) == 11
    assert tables.table_of(codebook) is not kept
    codebook.data = codebook.flip(0)  # as modules do that move; the version stays
    assert int(by_triton(x, codebook)) == 8


def test_a_codebook_made_for_inference_is_never_stale() -> None:
    with torch.inference_mode():
        codebook = noise(20, 4, seed=20)
        x = codebook[[4]].clone()
        assert int(by_triton(x, codebook)) == 4
        codebook[4] += 1
        codebook[11] = x[0]
        assert int(by_triton(x, codebook)) == 11


def test_tables_live_as_long_as_their_codebooks() -> None:
    before = len(weight_cache._tables)
    codebook = noise(20, 4, seed=21)
    tables.table_of(codebook)
    assert len(weight_cache._tables) == before + 1
    del codebook
    assert len(weight_cache._tables) == before


@settings(max_examples=examples(20))
@given(dim=st.integers(1, 70), exponent=st.integers(-40, 37), seed=st.integers(0, 2**32))
def test_table_halves_the_codebook_exactly_enough(dim: int, exponent: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    codebook = torch.randn(9, dim, generator=generator) * 10.0**exponent
    built = tables.build_table(codebook)
    power, reach = built.exponent_and_reach.tolist()
    scaled = codebook.double() * 2.0**power
    sums = built.halves[:9, :, :dim].double().sum(1)
    if codebook.abs().max() > 1e-33:
        assert 2**13 <= float(scaled.abs().max()) < 2**14
    assert ((sums - scaled).abs() <= 2.0**-22 * scaled.abs() + 2.0**-25).all()
    assert not built.halves[9:].any()
    assert not built.halves[:, :, dim:].any()
    assert len(built.offsets) % tables.CODES == 0
    assert torch.isneginf(built.offsets[9:]).all()
    assert torch.equal(built.offsets[:9], (scaled.square().sum(1) / -2).float())
    assert reach == pytest.approx(float(scaled.norm(dim=1).max()), rel=1e-6)


# ---- what it takes


def test_unsupported() -> None:
    implementation = registry.implementation("nearest_code", "triton")
    x, codebook = noise(3, 4), noise(5, 4)
    assert implementation.unsupported(x, codebook) == []
    assert "float64" in implementation.unsupported(x.double(), codebook)[0]
    assert "not of 257" in implementation.unsupported(noise(1, 257), noise(1, 257))[0]
    assert "not of 0" in implementation.unsupported(x[:, :0], codebook[:, :0])[0]
    many = codebook[:1].expand(2**20 + 1, -1)
    assert implementation.unsupported(x, many[1:]) == []
    assert "not 1048577" in implementation.unsupported(x, many)[0]
    assert "codebook on meta" in " ".join(implementation.unsupported(x, codebook.to("meta")))


def test_shipped_launches_are_planned_from_shapes_alone(lite: Codec) -> None:
    launches = shipped()
    assert {step.name for step in launches.values()} == set(KERNELS)
    kernels = [name.split()[0] for name in launches if "1000 x 8192 x 8 " in name]
    assert kernels == ["nominate", "decide"]
    codes, dim = lite.codebook.vectors.shape
    for rows in (12, 1000, 131072):
        assert f"nominate {rows} x {codes} x {dim} float32" in launches
    for step in launches.values():
        tensors = [v for v in step.arguments.values() if isinstance(v, Tensor)]
        assert all(tensor.device.type == "meta" for tensor in tensors)


# ---- on a device, at real sizes


@gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    ("rows", "codes", "dim"),
    [
        (12, 8192, 8),
        (1000, 8192, 8),
        (131072, 8192, 8),
        (12, 8192, 32),
        (1000, 8192, 32),
        (131072, 8192, 32),
        (131071, 8191, 20),
        (16384, 65536, 8),
        (4096, 65536, 64),
        (20000, 8192, 256),
        (1, 1, 1),
    ],
)
def test_on_a_device(rows: int, codes: int, dim: int, dtype: torch.dtype) -> None:
    x, codebook = planted(rows, codes, dim, seed=rows + codes, off=1e-6)
    check(x.to("cuda", dtype), codebook.to("cuda", dtype))


@gpu
@pytest.mark.parametrize("scale", [1e-38, 1e-19, 1e19, 1e30])
def test_magnitudes_on_a_device(scale: float) -> None:
    x, codebook = noise(3000, 32, seed=22).cuda(), noise(8192, 32, seed=23).cuda()
    check(x * scale, codebook * scale)
    check(x[:300] * scale, codebook)
    check(x[:300], codebook * scale)


@gpu
def test_a_row_on_a_device_is_the_same_in_any_batch() -> None:
    x, codebook = planted(40000, 8192, 32, seed=24, off=1e-7)
    x, codebook = x.cuda(), codebook.cuda()
    together = by_triton(x, codebook)
    for rows in (1, 12, 1000, 16383, 16384):
        assert torch.equal(by_triton(x[-rows:], codebook), together[-rows:])


@gpu
def test_more_numbers_on_a_device_than_32_bits_count() -> None:
    codebook = noise(300, 256, seed=25).to("cuda", torch.float16)
    x = codebook[torch.arange(2**23 + 100, device="cuda") % 300]
    found = by_triton(x, codebook)
    assert torch.equal(found.cpu(), torch.arange(2**23 + 100).remainder(300).int())


@gpu
@pytest.mark.parametrize("dim", [8, 32, 64, 256])
def test_scores_on_a_device_keep_their_bound(dim: int) -> None:
    x, codebook = noise(512, dim, seed=dim).cuda(), noise(8192, dim, seed=dim + 1).cuda()
    error, width = bounds_used(x, codebook)
    print(f"dim {dim}: at most {error:.3f} of the bound is used")
    assert error <= 1
    assert width.max() <= 1
