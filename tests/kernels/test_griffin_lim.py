"""Compare the Griffin-Lim kernel with float64, in the interpreter or on a device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

import melcap
from melcap.errors import BackendError, InputError
from melcap.kernels.griffin_lim import launches
from melcap.kernels.griffin_lim.tables import tables_of
from melcap.kernels.launch import launched, run
from melcap.ops import griffin_lim, registry
from melcap.ops.griffin_lim import griffin_lim_reference
from tests.helpers import examples, in_nan, noise

KERNEL = "griffin_lim_step"
MOMENTUM = 0.9


pytestmark = pytest.mark.usefixtures("poisoned_memory")


def drawn(
    batch: int, frames: int, n_fft: int, hop: int, seed: int = 0, device: str = "cpu"
) -> Tensor:
    """Return noise, noise a tenth as loud away from it, and magnitudes near those of noise.

    They are float32 [batch, frames, 2 * hop + n_fft / 2 + 1], contiguous in memory of NaN.
    """
    wave, moved = noise(2, batch, frames, hop, seed=seed, amplitude=1.0)
    lift = noise(batch, frames, n_fft // 2 + 1, seed=seed + 1, amplitude=0.3)
    magnitude = (1 + lift).abs() * (3 / 8 * n_fft) ** 0.5
    return in_nan(torch.cat((wave, wave + 0.1 * moved, magnitude), dim=2).to(device))


def on_triton(
    x: Tensor, n_fft: int, hop: int, steps: int = 1, momentum: float = MOMENTUM
) -> Tensor:
    """Run it on the Triton backend and check that its kernel ran once for each step."""
    before = launched.copy()
    with melcap.use_backend("triton"):
        found = griffin_lim(x, n_fft, hop, steps=steps, momentum=momentum)
    assert launched - before == {KERNEL: steps}
    return found


@contextmanager
def blocks_of_a_program(count: int) -> Iterator[None]:
    """Let each program write so many blocks, as in larger batches."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launches, "blocks_each", lambda blocks: count)
        yield


@cache
def two_clips() -> tuple[Tensor, Tensor]:
    """Return two clips of five blocks of 128 samples, and what a step with n_fft 256 returns.

    Several tests compare it with the same numbers launched or stored in another way.
    """
    x = drawn(2, 5, 256, 128)
    return x, on_triton(x, 256, 128)


def assert_close(
    found: Tensor, x: Tensor, n_fft: int, hop: int, steps: int = 1, momentum: float = MOMENTUM
) -> None:
    """Check the registry's tolerance against float64, for each step."""
    expected = griffin_lim_reference(x.double(), n_fft, hop, momentum, steps)
    assert found.shape == expected.shape
    assert found.dtype == torch.float32
    assert found.is_contiguous()
    assert not found.isnan().any(), f"NaN at {found.isnan().nonzero()[0].tolist()}"
    tolerance = registry.implementation("griffin_lim", "triton").tolerances[x.dtype]
    error = (found.double() - expected).abs()
    excess = error / (steps * (tolerance.atol + tolerance.rtol * expected.abs()))
    where = [int(i) for i in torch.unravel_index(excess.argmax(), excess.shape)]
    assert excess.max() <= 1, f"{float(error[tuple(where)]):.1e} at [clip, frame, place] {where}"


@pytest.mark.slow
@settings(max_examples=examples(5))
@given(
    batch=st.integers(1, 2),
    overlap_and_steps=st.sampled_from([(2, 1), (2, 3), (4, 1), (4, 2)]),
    blocks=st.integers(1, 5),
    each=st.integers(1, 6),
    momentum=st.sampled_from([0.0, 0.5, 0.99]),
    half=st.booleans(),
    seed=st.integers(0, 99),
)
@example(2, (4, 1), 2, 2, 0.99, False, 0)
@example(1, (4, 3), 1, 3, 0.99, True, 0)
@example(1, (8, 1), 3, 2, 0.5, False, 0)
def test_any_clips(
    batch: int,
    overlap_and_steps: tuple[int, int],
    blocks: int,
    each: int,
    momentum: float,
    half: bool,
    seed: int,
) -> None:
    """Programs of any size give the same bits, whether they divide a clip's blocks or not."""
    overlap, steps = overlap_and_steps
    n_fft, hop = 256, 256 // overlap
    x = drawn(batch, blocks + 2 * steps * (overlap - 1), n_fft, hop, seed)
    x = x.half() if half else x
    with blocks_of_a_program(each):
        found = on_triton(x, n_fft, hop, steps, momentum)
    assert_close(found, x, n_fft, hop, steps, momentum)
    assert torch.equal(on_triton(x, n_fft, hop, steps, momentum), found)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n_fft", "hop"),
    [(512, 128), (1024, 256), (1024, 512), (1024, 128), (2048, 512), (4096, 1024)],
)
def test_any_window(n_fft: int, hop: int) -> None:
    x = drawn(1, 2 * (n_fft // hop) - 1, n_fft, hop)
    assert_close(on_triton(x, n_fft, hop), x, n_fft, hop)


def test_programs_fill_a_device_before_they_grow() -> None:
    blocks = [1, 90, launches.PROGRAMS, launches.PROGRAMS + 1, 64 * 1723, 2**40]
    assert [launches.blocks_each(count) for count in blocks] == [1, 1, 1, 2, 32, 32]


@pytest.mark.slow
def test_a_clip_gives_the_same_bits_in_any_batch_and_chunk() -> None:
    x = drawn(2, 6, 256, 128)
    together = on_triton(x, 256, 128, 2)
    assert_close(together, x, 256, 128, 2)
    assert torch.equal(on_triton(x[1:], 256, 128, 2), together[1:])
    assert torch.equal(on_triton(x[:1, 1:], 256, 128, 2), together[:1, 1:])


@pytest.mark.slow
def test_any_layout() -> None:
    """Rows and clips may be apart, channels first, clips repeated, numbers of 16 bits."""
    x, expected = two_clips()
    apart = in_nan(x.new_full((3, 8, x.shape[2] + 5), torch.nan))
    apart = apart[:2, 2:-1, 3:-2].copy_(x)
    assert torch.equal(on_triton(apart, 256, 128), expected)
    channels_first = x.transpose(1, 2).contiguous().transpose(1, 2)
    assert torch.equal(on_triton(channels_first, 256, 128), expected)
    assert torch.equal(on_triton(x[1:].expand(2, -1, -1), 256, 128)[1], expected[1])
    half = x[:1].half()
    assert torch.equal(on_triton(half, 256, 128), on_triton(half.float(), 256, 128))


@pytest.mark.slow
def test_nothing_is_read_or_written_elsewhere() -> None:
    """A clip fills a program and a part. NaN is around what is read, 7 around the result."""
    x, expected = two_clips()
    wave, before, magnitude = x.tensor_split((128, 256), dim=2)
    longer = in_nan(torch.full((2, 7, 128), torch.nan))
    before = longer[:, 1:-1].copy_(before)
    order = tables_of(256, 128, x.device).order
    given = in_nan(wave), before, in_nan(magnitude.index_select(2, order))
    copies = [tensor.clone() for tensor in given]
    memory = torch.full((2 * 4096 + 2 * 3 * 128,), 7.0)
    out = memory[4096:-4096].view(2, 3, 128).fill_(torch.nan)
    with blocks_of_a_program(2):
        run(launches.plan(*given, out, 256, MOMENTUM))
    assert torch.equal(out, expected[..., :128])
    assert (memory[:4096] == 7).all()
    assert (memory[-4096:] == 7).all()
    assert all(torch.equal(one, other) for one, other in zip(given, copies, strict=True))


@pytest.mark.slow
def test_where_there_is_no_phase_none_is_made_up() -> None:
    x = drawn(1, 7, 256, 64)
    x[..., :128] = 0
    x[..., 200:] = 0  # bins that shall be silent, too
    assert not on_triton(x, 256, 64)[..., :128].any()
    x[..., :128] = 1e-6 * noise(1, 7, 1).repeat(1, 1, 128)  # nearly none
    assert_close(on_triton(x, 256, 64), x, 256, 64)


@pytest.mark.slow
@pytest.mark.parametrize("place", [3, 134, 256, 320, 384])
def test_what_is_not_a_number_is_seen_in_the_end(place: int) -> None:
    """NaN is in a wave, the wave before, and the magnitudes of the first, middle, last bin.

    It is in the last row, which counts for the second of two blocks alone.
    """
    x = drawn(1, 4, 256, 128)
    x[0, 3, place] = torch.nan
    found = on_triton(x, 256, 128)
    expected = griffin_lim_reference(x.double(), 256, 128, MOMENTUM, 1)
    assert torch.equal(found.isnan(), expected.isnan())
    assert found[0, 0].isfinite().all()
    assert found[0, 1].isnan().any()


def test_gradients_are_the_references() -> None:
    x = drawn(1, 8, 256, 64).requires_grad_()
    with melcap.use_backend("triton"):
        (found,) = torch.autograd.grad(griffin_lim(x, 256, 64).square().sum(), x)
    made = griffin_lim_reference(x, 256, 64, 0.99, 1)
    (expected,) = torch.autograd.grad(made.square().sum(), x)
    assert torch.equal(found, expected)


def test_nothing_to_do_launches_nothing() -> None:
    before = launched.copy()
    with melcap.use_backend("triton"):
        assert griffin_lim(drawn(0, 8, 256, 64), 256, 64).shape == (0, 2, 257)
        assert griffin_lim(drawn(2, 6, 256, 64), 256, 64).shape == (2, 0, 257)
    assert launched == before


def test_refusals() -> None:
    with melcap.use_backend("triton"):
        with pytest.raises(BackendError, match="from 256 to 4096, not 128"):
            griffin_lim(drawn(1, 8, 128, 32), 128, 32)
        with pytest.raises(BackendError, match=r"not torch\.float64"):
            griffin_lim(drawn(1, 8, 256, 64).double(), 256, 64)
        with pytest.raises(BackendError, match="2, 4 or 8 hops, not 16"):
            griffin_lim(drawn(1, 32, 256, 16), 256, 16)


@pytest.mark.parametrize(
    ("x", "sizes", "steps", "message"),
    [
        (torch.zeros(1, 9, 257), (256, 63), 1, "hop must be even and n_fft a multiple"),
        (torch.zeros(1, 9, 385), (256, 256), 1, "not 256 and 256"),
        (
            torch.zeros(1, 9, 256),
            (256, 64),
            1,
            r"\[batch, frames, 257\], not float32 \[1, 9, 256\]",
        ),
        (torch.zeros(9, 257), (256, 64), 1, r"not float32 \[9, 257\]"),
        (torch.zeros(1, 9, 257, dtype=torch.int32), (256, 64), 1, "must be floating point"),
        (torch.zeros(1, 11, 257), (256, 64), 2, "2 steps need 12 frames .* there are 11"),
        (torch.zeros(1, 11, 257), (256, 64), 0, "0 steps"),
    ],
)
def test_sizes_that_do_not_fit(x: Tensor, sizes: tuple[int, int], steps: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        griffin_lim(x, *sizes, steps=steps)


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("batch", "frames", "n_fft", "hop", "steps"),
    [
        (1, 26, 1024, 256, 4),
        (1, 1747, 1024, 256, 1),
        (64, 1747, 1024, 256, 1),
        (3, 300, 256, 64, 2),
        (3, 300, 512, 64, 2),
        (3, 300, 2048, 512, 2),
        (3, 300, 4096, 1024, 2),
        (2, 9, 1024, 512, 1),
    ],
)
def test_on_a_device(batch: int, frames: int, n_fft: int, hop: int, steps: int) -> None:
    x = drawn(batch, frames, n_fft, hop, device="cuda")
    found = on_triton(x, n_fft, hop, steps)
    assert_close(found, x, n_fft, hop, steps)
    context = 2 * steps * (n_fft // hop - 1)
    assert torch.equal(on_triton(x[-1:], n_fft, hop, steps), found[-1:])
    part = x[:, 1 : context + 2]
    assert torch.equal(on_triton(part, n_fft, hop, steps), found[:, 1:2])
