"""Compare `polar_istft` with its definition written out in float64."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from melcap.errors import InputError
from melcap.ops import polar_istft
from melcap.ops.polar_istft import TOLERANCE
from tests.helpers import examples, noise

pytestmark = pytest.mark.usefixtures("poisoned_memory")

LOUDEST = 1.5


def drawn(batch: int, steps: int, n_fft: int, seed: int = 0) -> Tensor:
    """Return ln magnitudes, a few above `LOUDEST`, and phases of some turns."""
    x = noise(batch, steps, n_fft + 2, seed=seed, amplitude=1.0)
    x[..., n_fft // 2 + 1 :] *= 10
    return x


def direct(x: Tensor, window: Tensor, hop: int) -> Tensor:
    """Compute the definition: add cosines of all bins, windowed, at each window's place."""
    n_fft, steps = len(window), x.shape[1]
    ln_magnitude, phase = x.double().split(n_fft // 2 + 1, dim=2)
    bins = torch.arange(n_fft // 2 + 1)
    twice = torch.where((bins == 0) | (bins == n_fft // 2), 1.0, 2.0)
    magnitude = ln_magnitude.clamp(max=LOUDEST).exp() * twice / n_fft
    angle = 2 * math.pi * torch.outer(torch.arange(n_fft), bins).double() / n_fft
    real, imaginary = magnitude * phase.cos(), magnitude * phase.sin()
    imaginary[..., 0] = imaginary[..., -1] = 0
    frames = (real @ angle.cos().T - imaginary @ angle.sin().T) * window.double()
    wave = torch.zeros(len(x), (steps - 1) * hop + n_fft, dtype=torch.float64)
    for step in range(steps):
        wave[:, step * hop : step * hop + n_fft] += frames[:, step]
    return wave[:, n_fft - hop : steps * hop]


@settings(max_examples=examples(40))
@given(
    batch=st.integers(1, 3),
    hop=st.integers(1, 12),
    overlap=st.integers(2, 6),
    blocks=st.integers(0, 5),
    seed=st.integers(0, 2**31),
)
def test_it_is_its_definition(batch: int, hop: int, overlap: int, blocks: int, seed: int) -> None:
    overlap += hop * overlap % 2
    n_fft = hop * overlap
    x, window = drawn(batch, blocks + overlap - 1, n_fft, seed), noise(n_fft, seed=seed) + 1
    found = polar_istft(x, window, hop, loudest=LOUDEST)
    expected = direct(x, window, hop)
    assert found.dtype == torch.float32
    assert found.shape == expected.shape == (batch, blocks * hop)
    torch.testing.assert_close(found.double(), expected, atol=TOLERANCE.atol, rtol=TOLERANCE.rtol)
    exact = polar_istft(x.double(), window.double(), hop, loudest=LOUDEST)
    torch.testing.assert_close(exact, expected, atol=1e-13, rtol=1e-13)
    learning = polar_istft(x.double().requires_grad_(), window.double(), hop, loudest=LOUDEST)
    torch.testing.assert_close(learning.detach(), expected, atol=1e-13, rtol=1e-13)


def test_the_ends_of_a_spectrum_have_no_imaginary_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """The FFT of a CPU would ignore it, and cuFFT adds it for some numbers of windows."""
    spectra = []
    inverse = torch.fft.irfft

    def watched(spectrum: Tensor, n: int) -> Tensor:
        spectra.append(spectrum)
        return inverse(spectrum, n)

    monkeypatch.setattr(torch.fft, "irfft", watched)
    polar_istft(drawn(2, 5, 32), torch.ones(32), 8, loudest=LOUDEST)
    polar_istft(drawn(2, 5, 32).requires_grad_(), torch.ones(32), 8, loudest=LOUDEST)
    assert len(spectra) == 2
    for spectrum in spectra:
        assert not spectrum.imag[..., [0, -1]].any()
        assert spectrum.imag[..., 1:-1].all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    x, window = drawn(2, 5, 32).to(dtype), torch.hann_window(32)
    expected = polar_istft(x.float(), window, 8, loudest=LOUDEST)
    found = polar_istft(x, window, 8, loudest=LOUDEST)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)
    x.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(polar_istft(x, window, 8, loudest=LOUDEST), expected)


def test_gradients() -> None:
    x, window = drawn(2, 4, 8).double(), noise(8, amplitude=1).double()
    leaves = x.requires_grad_(), window.requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: polar_istft(a, b, 4, loudest=LOUDEST), leaves)


@pytest.mark.slow
def test_the_operator_is_sound() -> None:
    window = torch.hann_window(16)
    for x in (drawn(2, 5, 16), drawn(2, 5, 16).double(), drawn(2, 18, 3).mT, drawn(1, 3, 16)):
        torch.library.opcheck(torch.ops.melcap.polar_istft.default, (x, window, 4, LOUDEST))


@pytest.mark.slow
@pytest.mark.parametrize("asked", [True, False])
def test_compiled_is_eager(asked: bool) -> None:
    """It is one graph, and lengths recompile it once at most."""
    window = torch.hann_window(16)

    def call(x: Tensor) -> Tensor:
        return polar_istft(x * 2, window, 4, loudest=LOUDEST) * 3

    torch._dynamo.reset()
    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    with torch._dynamo.config.patch(recompile_limit=2, fail_on_recompile_limit_hit=True):
        for steps in (9, 13, 20):
            x = drawn(2, steps, 16).requires_grad_(asked)
            torch.testing.assert_close(compiled(x), call(x))


@pytest.mark.parametrize(
    ("x", "window", "hop", "message"),
    [
        (torch.zeros(2, 9, 18), torch.ones(4, 4), 4, r"even, not float32 \[4, 4\]"),
        (torch.zeros(2, 9, 17), torch.ones(15), 5, r"even, not float32 \[15\]"),
        (torch.zeros(2, 9, 2), torch.ones(0), 1, r"even, not float32 \[0\]"),
        (torch.zeros(2, 9, 18), torch.ones(16).int(), 4, "window must be floating point"),
        (torch.zeros(2, 9, 17), torch.ones(16), 4, r"steps, 18\], not float32 \[2, 9, 17\]"),
        (torch.zeros(9, 18), torch.ones(16), 4, r"not float32 \[9, 18\]"),
        (torch.zeros(2, 9, 18).int(), torch.ones(16), 4, "x must be floating point"),
        (torch.zeros(2, 9, 18), torch.ones(16), 5, "multiple of hop, twice at least, not 16 and 5"),
        (torch.zeros(2, 9, 18), torch.ones(16), 0, "not 16 and 0"),
        (torch.zeros(2, 9, 18), torch.ones(16), 16, "not 16 and 16"),
        (torch.zeros(2, 2, 18), torch.ones(16), 4, "4 windows needs at least 3 steps.* are 2"),
    ],
)
def test_sizes_that_do_not_fit(x: Any, window: Any, hop: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        polar_istft(x, window, hop, loudest=LOUDEST)
