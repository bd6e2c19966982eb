"""Triton's nearest_code gives the lowest index within a tie of the nearest, by float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

import melcap
from melcap import ops
from melcap.ops import registry
from tests.helpers import noise

triton = pytest.importorskip("triton")
launch = pytest.importorskip("melcap.kernels.launch")
nearest_code = pytest.importorskip("melcap.kernels.nearest_code")

gpu = pytest.mark.gpu
IMPOSSIBLE = -7
KERNELS = ("split", "nominate", "decide", "settle")


@pytest.fixture(autouse=True)
def _poison(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the kernels allocate holds NaN, or an impossible index, until it is written."""

    def poisoned(tensor: Tensor) -> Tensor:
        return tensor.fill_(torch.nan if tensor.is_floating_point() else IMPOSSIBLE)

    empty, new_empty = torch.empty, Tensor.new_empty
    monkeypatch.setattr(torch, "empty", lambda *a, **k: poisoned(empty(*a, **k)))
    monkeypatch.setattr(Tensor, "new_empty", lambda *a, **k: poisoned(new_empty(*a, **k)))


def brute(x: Tensor, codebook: Tensor) -> Tensor:
    """Every distance in float64, a few rows at a time; the lowest index within 1e-6."""
    codes, found = codebook.double(), []
    for rows in x.double().split(max(1, 2**24 // codebook.numel())):
        distances = (rows[:, None] - codes).norm(dim=2)
        tied = distances <= distances.min(dim=1, keepdim=True).values * (1 + 1e-6)
        found.append(tied.int().argmax(dim=1).int())
    return torch.cat(found) if found else torch.zeros(0, dtype=torch.int32, device=x.device)


def by_triton(x: Tensor, codebook: Tensor) -> Tensor:
    """On the triton backend; that its kernels ran, each once, is asserted."""
    before = launch.launched.copy()
    with melcap.use_backend("triton"):
        found = ops.nearest_code(x, codebook)
    ran = {name: launch.launched[name] - before[name] for name in KERNELS}
    assert ran == dict.fromkeys(ran, min(len(x), 1))
    assert found.dtype == torch.int32
    return found


def check(x: Tensor, codebook: Tensor) -> None:
    found, expected = by_triton(x, codebook), brute(x, codebook)
    wrong = (found != expected).nonzero().flatten()
    assert not len(wrong), (
        f"{len(wrong)} of {len(x)} rows, first {int(wrong[0])}: "
        f"{int(found[wrong[0]])} for {int(expected[wrong[0]])}"
    )


# ---- any shape, any values


def planted(rows: int, codes: int, dim: int, seed: int, off: float) -> tuple[Tensor, Tensor]:
    """Copied codes, and rows on a code or about midway between two: distances tie, or almost."""
    generator = torch.Generator().manual_seed(seed)
    codebook = torch.randn(codes, dim, generator=generator)
    copied = torch.rand(codes, generator=generator) < 0.2
    codebook[copied] = codebook[torch.randint(codes, (int(copied.sum()),), generator=generator)]
    x = torch.randn(rows, dim, generator=generator)
    midway = torch.rand(rows, generator=generator) < 0.6
    pair = torch.randint(codes, (2, int(midway.sum())), generator=generator)
    x[midway] = codebook[pair].mean(0) + off * torch.randn(pair.shape[1], dim, generator=generator)
    return x, codebook


@settings(max_examples=25)
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
@example(rows=66, codes=40, dim=5, seed=1, off=-3, exponent=0, shift=0.0)
def test_is_its_definition(
    rows: int, codes: int, dim: int, seed: int, off: int, exponent: int, shift: float
) -> None:
    x, codebook = planted(rows, codes, dim, seed, 10.0**off)
    check((x + shift) * 10.0**exponent, (codebook + shift) * 10.0**exponent)


@pytest.mark.parametrize("dim", [100, 256])
def test_dim_in_chunks(dim: int) -> None:
    check(*planted(3, 140, dim, dim, 1e-6))


def test_many_tiles_of_codes_in_every_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shares of two tiles and a part, some of them empty, and one share of all tiles."""
    x, codebook = planted(7, 2700, 8, 3, 1e-6)
    x[:3] = codebook[[2699, 2048, 0]]
    check(x, codebook)
    monkeypatch.setattr(nearest_code, "FEW", 0)
    check(x, codebook)
    check(*planted(130, 300, 8, 4, 1e-6))


def test_every_code_is_found() -> None:
    """Each code is its own nearest, wherever it stands in tile, group and slot."""
    codebook = noise(261, 6, seed=1)
    assert torch.equal(by_triton(codebook, codebook), torch.arange(261, dtype=torch.int32))


# ---- ties


@pytest.mark.parametrize(("first", "second"), [(0, 1), (3, 19), (5, 133), (20, 160), (129, 140)])
def test_a_tie_is_within_a_millionth(first: int, second: int) -> None:
    """Distances 1 + step / 2^23 and 1 tie up to 8.4 steps."""
    codebook = torch.full((161, 3), 9.0)
    x = torch.zeros(1, 3)
    for step, expected in ((0, first), (7, first), (8, first), (9, second), (11, second)):
        codebook[first] = torch.tensor([0, 1 + step * 2.0**-23, 0])
        codebook[second] = torch.tensor([0, 0, -1.0])
        assert by_triton(x, codebook).tolist() == [expected]
        assert brute(x, codebook).tolist() == [expected]


@pytest.mark.parametrize("bits", [24, 30, 36, 38])
def test_a_tie_is_measured_far_beyond_float32(bits: int) -> None:
    """|(1, t)| is 2^-bits more or less than a tie with |(1, 0)|; t in float32 puts it 2^-43 off."""
    for sign, expected in ((-1, 0), (1, 1)):
        t = ((1 + 1e-6 + sign * 2.0**-bits) ** 2 - 1) ** 0.5
        codebook = torch.tensor([[1.0, t], [-1.0, 0.0]])
        assert by_triton(torch.zeros(1, 2), codebook).tolist() == [expected]
        assert brute(torch.zeros(1, 2), codebook).tolist() == [expected]
        moved = codebook + torch.tensor([[4096.0, 0.0]])  # differences from x stay exact
        assert by_triton(torch.tensor([[4096.0, 0.0]]), moved).tolist() == [expected]


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


@pytest.mark.parametrize("few", [0, nearest_code.FEW])
def test_ties_in_one_slot(few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the runner-up of a slot ties, the whole codebook is measured."""
    monkeypatch.setattr(nearest_code, "FEW", few)
    codebook = noise(700, 5, seed=2, amplitude=1)
    codebook[[17 + 16, 17 + 128, 17 + 512, 600]] = codebook[17].clone()
    for row in (codebook[17:18], codebook[17:18] + 1e-3):
        assert by_triton(row, codebook).tolist() == [17]
    codebook[[17 + 128, 17 + 256]] = codebook[17] / 9
    codebook[17] = codebook[17] / 9 * (1 + 5e-7)  # a little farther from zero, and first
    assert by_triton(torch.zeros(1, 5), codebook).tolist() == [17]
    check(noise(4, 5, seed=3), codebook[:1].expand(300, -1))


def test_only_unclear_rows_are_left_to_settle(monkeypatch: pytest.MonkeyPatch) -> None:
    """One nearest code: decided. Two in different slots: these groups. In one slot: all codes."""
    monkeypatch.setattr(nearest_code, "FEW", 0)
    codebook = noise(300, 12, seed=4)
    codebook[8], codebook[20 + 128] = codebook[3], codebook[20]
    x = noise(9, 12, seed=5)
    x[0], x[1] = codebook[3], codebook[20]
    found = torch.empty(9, dtype=torch.int32)
    for step in nearest_code.plan(x, nearest_code.table(codebook), found)[:3]:
        launch.run(step)
    assert found[:2].tolist() == [-1, -2]
    assert torch.equal(found[2:], brute(x[2:], codebook))


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_scores_that_cannot_tell_codes_apart(offset: float) -> None:
    """Codes far from zero and close together: all is left to exact distances."""
    generator = torch.Generator().manual_seed(5)
    codebook = offset + 1e-3 * torch.randn(400, 4, generator=generator)
    check(codebook[100:104] + 1e-4 * torch.randn(4, 4, generator=generator), codebook)


# ---- magnitudes


@pytest.mark.parametrize("scale", [1e-42, 1e-38, 1e-30, 1e-19, 1e19, 1e30, 1e36])
def test_numbers_whose_squares_overflow_or_vanish(scale: float) -> None:
    x, codebook = noise(4, 8, seed=10), noise(140, 8, seed=11)
    check(x * scale, codebook * scale)
    check(x * scale, codebook)
    check(x, codebook * scale)


def test_rows_and_codes_of_all_magnitudes() -> None:
    powers = 10.0 ** torch.arange(-40, 36, 4).double()
    x, codebook = noise(19, 4, seed=12).double(), noise(190, 4, seed=13).double()
    codebook[::10] *= powers[:, None]
    check((x * powers[:, None]).float(), codebook.float())
    check(torch.zeros(1, 4), torch.zeros(3, 4))


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


def test_a_row_is_the_same_alone_and_in_any_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    x, codebook = planted(20, 200, 8, 18, 1e-7)
    together = by_triton(x, codebook)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    assert torch.equal(by_triton(x[order], codebook), together[order])
    alone = [int(by_triton(x[i : i + 1], codebook)) for i in range(0, 20, 3)]
    assert alone == together[::3].tolist()
    monkeypatch.setattr(nearest_code, "FEW", 0)  # the tiling of many rows
    assert torch.equal(by_triton(x.repeat(7, 1), codebook).view(7, 20), together.expand(7, -1))


# ---- the table


def test_a_changed_codebook_is_noticed() -> None:
    codebook = noise(20, 4, seed=19)
    x = codebook[[4]].clone()
    assert int(by_triton(x, codebook)) == 4
    kept = nearest_code.table(codebook)
    assert nearest_code.table(codebook) is kept
    codebook[4] += 1
    codebook[11] = x[0]
    assert int(by_triton(x, codebook)) == 11
    assert nearest_code.table(codebook) is not kept


def test_a_codebook_made_for_inference_is_never_stale() -> None:
    with torch.inference_mode():
        codebook = noise(20, 4, seed=20)
        x = codebook[[4]].clone()
        assert int(by_triton(x, codebook)) == 4
        codebook[4] += 1
        codebook[11] = x[0]
        assert int(by_triton(x, codebook)) == 11


def test_tables_live_as_long_as_their_codebooks() -> None:
    before = len(nearest_code._tables)
    codebook = noise(20, 4, seed=21)
    nearest_code.table(codebook)
    assert len(nearest_code._tables) == before + 1
    del codebook
    assert len(nearest_code._tables) == before


@settings(max_examples=20)
@given(dim=st.integers(1, 70), exponent=st.integers(-40, 37), seed=st.integers(0, 2**32))
def test_table_halves_the_codebook_exactly_enough(dim: int, exponent: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    codebook = torch.randn(9, dim, generator=generator) * 10.0**exponent
    built = nearest_code.build_table(codebook)
    power, reach = built.facts.tolist()
    scaled = codebook.double() * 2.0**power
    sums = built.halves[:9, :, :dim].double().sum(1)
    if codebook.abs().max() > 1e-33:
        assert 2**13 <= float(scaled.abs().max()) < 2**14
    assert ((sums - scaled).abs() <= 2.0**-22 * scaled.abs() + 2.0**-25).all()
    assert not built.halves[9:].any()
    assert not built.halves[:, :, dim:].any()
    assert len(built.offsets) % nearest_code.CODES == 0
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
    assert "codebook on meta" in " ".join(implementation.unsupported(x, codebook.to("meta")))


def test_shipped_launches_are_planned_from_shapes_alone() -> None:
    launches = nearest_code.shipped()
    assert {step.name for step in launches.values()} == set(KERNELS)
    for step in launches.values():
        tensors = [v for v in step.arguments.values() if isinstance(v, Tensor)]
        assert all(tensor.device.type == "meta" for tensor in tensors)


# ---- on a device, at real sizes


@gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    ("rows", "codes", "dim"),
    [
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
def test_scores_on_a_device_keep_their_bound() -> None:
    """The nominated peaks against float64: within the error that `decide` allows for."""
    for dim in (8, 32, 64, 256):
        x, codebook = noise(512, dim, seed=dim).cuda(), noise(8192, dim, seed=dim + 1).cuda()
        built = nearest_code.table(codebook)
        found = torch.empty(512, dtype=torch.int32, device="cuda")
        steps = nearest_code.plan(x, built, found)
        for step in steps[:2]:
            launch.run(step)
        power, reach = built.facts.tolist()
        scaled = x.double() * 2**power
        scores = scaled @ (codebook.double() * 2**power).t() + built.offsets.double()
        tiles = scores.unflatten(1, (-1, nearest_code.GROUP, nearest_code.SLOTS)).amax(2)
        shares = steps[1].arguments["best_ptr"].double()
        expected = tiles.unflatten(1, (shares.shape[1], -1)).amax(2)
        constants = steps[2].constants
        bound = (
            constants["PRODUCT_ERROR"] * scaled.norm(dim=1) * reach
            + constants["SQUARE_ERROR"] * reach**2
            + constants["PLACE_ERROR"] * (scaled.norm(dim=1) + reach)
        )
        used = (shares - expected).abs().amax(dim=(1, 2)) / bound
        print(f"dim {dim}: at most {float(used.max()):.3f} of the bound is used")
        assert used.max() <= 1
