"""Compare the kernel of polar_istft with float64, in the interpreter or on a device."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import pytest
import torch
import triton
import triton.language as tl
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

import melcap
from melcap.errors import BackendError
from melcap.kernels.launch import launched, run
from melcap.kernels.polar_istft import launches
from melcap.kernels.polar_istft.polar import cosine_and_sine
from melcap.model.vocoder import ISTFTHead
from melcap.ops import polar_istft, registry
from melcap.ops.polar_istft import polar_istft_reference
from tests.helpers import examples, in_nan, noise

KERNEL = "polar_istft_kernel"
LOUDEST = 2.0

pytestmark = pytest.mark.usefixtures("poisoned_memory")


def drawn(batch: int, steps: int, n_fft: int, seed: int = 0) -> Tensor:
    """Return ln magnitudes, a few above `LOUDEST`, and phases of some turns, in memory of NaN."""
    x = noise(batch, steps, n_fft + 2, seed=seed, amplitude=1.0)
    x[..., n_fft // 2 + 1 :] *= 10
    return in_nan(x)


def window_of(n_fft: int) -> Tensor:
    """Return a window without symmetry, in memory of NaN."""
    return in_nan(torch.hann_window(n_fft) + torch.linspace(0, 0.3, n_fft))


def on_triton(x: Tensor, n_fft: int, hop: int, loudest: float = LOUDEST) -> Tensor:
    """Run it on the Triton backend and check that its kernel ran once."""
    before = launched.copy()
    with melcap.use_backend("triton"):
        found = polar_istft(x, window_of(n_fft).to(x.device), hop, loudest=loudest)
    assert launched - before == {KERNEL: 1}
    return found


@contextmanager
def blocks_of_a_program(count: int) -> Iterator[None]:
    """Let each program write so many blocks, as in larger batches."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launches, "blocks_each", lambda blocks: count)
        yield


@cache
def two_clips() -> tuple[Tensor, Tensor]:
    """Return two clips of four steps with n_fft 256, and their three blocks of 128 samples."""
    x = drawn(2, 4, 256)
    return x, on_triton(x, 256, 128)


def assert_close(found: Tensor, x: Tensor, n_fft: int, hop: int, loudest: float = LOUDEST) -> None:
    """Check the registry's tolerance against float64."""
    window = window_of(n_fft).double().to(x.device)
    expected = polar_istft_reference(x.double(), window, hop, loudest)
    assert found.shape == expected.shape
    assert found.dtype == torch.float32
    assert found.is_contiguous()
    assert not found.isnan().any(), f"NaN at {found.isnan().nonzero()[0].tolist()}"
    tolerance = registry.implementation("polar_istft", "triton").tolerances[x.dtype]
    error = (found.double() - expected).abs()
    excess = error / (tolerance.atol + tolerance.rtol * expected.abs())
    where = [int(i) for i in torch.unravel_index(excess.argmax(), excess.shape)]
    assert excess.max() <= 1, f"{float(error[tuple(where)]):.1e} at [clip, sample] {where}"


@pytest.mark.slow
@settings(max_examples=examples(5))
@given(
    batch=st.integers(1, 3),
    overlap=st.sampled_from([2, 4, 8]),
    blocks=st.integers(1, 6),
    each=st.integers(1, 7),
    dtype=st.sampled_from([torch.float32, torch.float16]),
    seed=st.integers(0, 99),
)
@example(2, 4, 2, 2, torch.float32, 0)
@example(1, 4, 5, 3, torch.float16, 0)
@example(1, 8, 3, 2, torch.float32, 0)
def test_any_clips(
    batch: int, overlap: int, blocks: int, each: int, dtype: torch.dtype, seed: int
) -> None:
    """Programs of any size give the same bits, whether they divide a clip's blocks or not."""
    x = in_nan(drawn(batch, blocks + overlap - 1, 256, seed).to(dtype))
    with blocks_of_a_program(each):
        found = on_triton(x, 256, 256 // overlap)
    assert_close(found, x, 256, 256 // overlap)
    assert torch.equal(on_triton(x, 256, 256 // overlap), found)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n_fft", "hop"),
    [(128, 32), (512, 128), (1024, 256), (1024, 512), (1024, 128), (2048, 512), (4096, 1024)],
)
def test_any_window(n_fft: int, hop: int) -> None:
    x = drawn(1, n_fft // hop + 1, n_fft)
    assert_close(on_triton(x, n_fft, hop), x, n_fft, hop)


@pytest.mark.slow
def test_a_clip_gives_the_same_bits_in_any_batch_and_chunk() -> None:
    x = drawn(2, 7, 256)
    together = on_triton(x, 256, 64)
    assert torch.equal(on_triton(x[1:], 256, 64), together[1:])
    assert torch.equal(on_triton(x[:1, 2:], 256, 64), together[:1, 2 * 64 :])


@pytest.mark.slow
def test_any_layout() -> None:
    """Rows and clips may be apart, channels first, clips repeated."""
    x, expected = two_clips()
    apart = in_nan(x.new_full((3, 6, x.shape[2] + 5), torch.nan))[:2, 1:-1, 3:-2].copy_(x)
    assert torch.equal(on_triton(apart, 256, 128), expected)
    assert torch.equal(on_triton(x.mT.contiguous().mT, 256, 128), expected)
    assert torch.equal(on_triton(x[1:].expand(2, -1, -1), 256, 128)[1], expected[1])


@pytest.mark.slow
def test_nothing_is_read_or_written_elsewhere() -> None:
    """A clip fills a program and a part. NaN is around what is read, 7 around the result."""
    x, expected = two_clips()
    given = x, window_of(256)
    copies = [tensor.clone() for tensor in given]
    memory = torch.full((2 * 4096 + expected.numel(),), 7.0)
    out = memory[4096:-4096].view(expected.shape).fill_(torch.nan)
    with blocks_of_a_program(2):
        run(launches.plan(*given, out, 128, LOUDEST))
    assert torch.equal(out, expected)
    assert (memory[:4096] == 7).all()
    assert (memory[-4096:] == 7).all()
    assert all(torch.equal(one, other) for one, other in zip(given, copies, strict=True))


@triton.jit
def both(angle, cosine, sine, COUNT: tl.constexpr):
    """Store the cosines and the sines of angles."""
    at = tl.arange(0, COUNT)
    c, s = cosine_and_sine(tl.load(angle + at))
    tl.store(cosine + at, c)
    tl.store(sine + at, s)


@pytest.mark.parametrize(("largest", "bound"), [(1.0, 1e-7), (1000.0, 1.1e-7), (8000.0, 2e-7)])
def test_cosines_and_sines(largest: float, bound: float) -> None:
    """Angles are drawn from all of the range, and from the neighbours of multiples of pi / 4."""
    count = 1 << 15
    spread = torch.linspace(-largest, largest, count // 2)
    multiples = (torch.arange(count // 2) - count // 4) % int(largest * 4 / math.pi + 1)
    angle = torch.cat((spread, (multiples * (math.pi / 4)).float()))
    cosine, sine = torch.empty(2, count)
    both[(1,)](angle, cosine, sine, count)
    assert (cosine - angle.double().cos()).abs().max() <= bound
    assert (sine - angle.double().sin()).abs().max() <= bound


@pytest.mark.filterwarnings("ignore:invalid value encountered in")
def test_angles_without_a_phase_have_no_magnitude() -> None:
    """A float32 above 2^24 stands for more than a turn. An infinite one is not a number."""
    angle = torch.logspace(3, 38, 1 << 10)
    angle[:2] = torch.tensor([math.inf, math.nan])
    cosine, sine = torch.empty(2, 1 << 10)
    both[(1,)](angle, cosine, sine, 1 << 10)
    for found in (cosine, sine):
        assert found[:2].isnan().all()
        assert found[2:].abs().max() <= 1.000001


@pytest.mark.slow
def test_loud_silent_and_turning_bins() -> None:
    """Magnitudes are bounded above only; an infinite logarithm of either sign is one of them."""
    x = drawn(1, 2, 256)
    x[0, :, 40], x[0, :, 41], x[0, :, 42] = -math.inf, -200, math.inf
    x[0, 0, 129:] += 3000
    assert_close(on_triton(x, 256, 128), x, 256, 128)
    x[..., :129] = -math.inf
    assert not on_triton(x, 256, 128).any()
    x[..., :129] = 1e30
    found, scale = on_triton(x, 256, 128, 6.0), math.exp(6)
    quiet = polar_istft_reference(x.double(), window_of(256).double(), 128, 0.0)
    assert (found / scale - quiet).abs().max() <= 2e-6


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:invalid value encountered in cast")
@pytest.mark.parametrize("place", [0, 3, 64, 127, 128, 129, 193, 257])
def test_what_is_not_a_number_is_seen_in_the_end(place: int) -> None:
    """NaN is in a logarithm or a phase of the first, middle, last or another bin.

    It is in the last step, which counts for the second of two blocks alone.
    """
    x = drawn(1, 3, 256)
    x[0, 2, place] = torch.nan
    found = on_triton(x, 256, 128)
    assert found[0, :128].isfinite().all()
    assert found[0, 128:].isnan().all()


@pytest.mark.slow
def test_the_head_is_one_launch_after_its_linear_layer() -> None:
    head = ISTFTHead(5, 64, 4)
    x = noise(2, 5, 9, amplitude=1)
    with torch.no_grad():
        expected = head(x)
        before = launched.copy()
        with melcap.use_backend("triton"):
            found = head(x)
    assert (launched - before)[KERNEL] == 1
    assert found.shape == (2, 5 * 64)
    assert (found - expected).abs().max() <= 1e-5


def test_gradients_are_the_references() -> None:
    x, window = drawn(1, 4, 256).requires_grad_(), window_of(256).requires_grad_()
    before = launched.copy()
    with melcap.use_backend("triton"):
        made = polar_istft(x, window, 64, loudest=LOUDEST)
    assert launched == before
    expected = polar_istft_reference(x, window, 64, LOUDEST)
    for one, other in zip(
        torch.autograd.grad(made.square().sum(), (x, window)),
        torch.autograd.grad(expected.square().sum(), (x, window)),
        strict=True,
    ):
        assert torch.equal(one, other)


def test_nothing_to_do_launches_nothing() -> None:
    before = launched.copy()
    with melcap.use_backend("triton"):
        for x, shape in ((drawn(0, 8, 256), (0, 5 * 64)), (drawn(2, 3, 256), (2, 0))):
            assert polar_istft(x, window_of(256), 64, loudest=LOUDEST).shape == shape
    assert launched == before


@pytest.mark.parametrize(
    ("n_fft", "hop", "dtype", "message"),
    [
        (64, 16, torch.float32, "from 128 to 4096, not 64"),
        (768, 192, torch.float32, "from 128 to 4096, not 768"),
        (256, 64, torch.float64, r"not torch\.float64"),
        (256, 16, torch.float32, "2, 4 or 8 hops, not 16"),
        (768, 256, torch.float32, "2, 4 or 8 hops, not 3"),
    ],
)
def test_refusals(n_fft: int, hop: int, dtype: torch.dtype, message: str) -> None:
    x = drawn(1, 20, n_fft).to(dtype)
    with melcap.use_backend("triton"), pytest.raises(BackendError, match=message):
        polar_istft(x, window_of(n_fft), hop, loudest=LOUDEST)


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("batch", "steps", "n_fft", "hop"),
    [
        (1, 9, 1024, 256),
        (1, 1747, 1024, 256),
        (64, 1747, 1024, 256),
        (3, 300, 128, 32),
        (3, 300, 256, 64),
        (3, 300, 512, 64),
        (3, 300, 2048, 512),
        (3, 300, 4096, 1024),
        (2, 9, 1024, 512),
    ],
)
def test_on_a_device(batch: int, steps: int, n_fft: int, hop: int) -> None:
    x = in_nan(drawn(batch, steps, n_fft).to("cuda"))
    found = on_triton(x, n_fft, hop)
    assert_close(found, x, n_fft, hop)
    assert torch.equal(on_triton(x[-1:], n_fft, hop), found[-1:])
    part = x[:, 1 : n_fft // hop + 1]
    assert torch.equal(on_triton(part, n_fft, hop), found[:, hop : 2 * hop])
