"""Compare the forms of the operations for other graph runtimes with their definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from melcap.config import MelSpec
from melcap.ops import griffin_lim, log_mel
from melcap.ops.dft import Grid, InverseRealDFT, RealDFT
from melcap.ops.griffin_lim.portable import FirstState, GriffinLimStep
from melcap.ops.log_mel.portable import PortableLogMel
from melcap.ops.nearest_code import nearest_code_portable, nearest_code_reference
from tests.helpers import examples, noise


@given(st.integers(2, 600).map(lambda half: 2 * half), st.integers(0, 99))
@settings(max_examples=examples(60))
def test_the_dft_is_its_definition(n: int, seed: int) -> None:
    x = noise(2, n, 3, seed=seed)
    grid = Grid(n)
    expected = torch.fft.rfft(x.double(), dim=1)
    found = RealDFT(n)(x)
    assert found.shape == (2, grid.kept, 2, grid.columns, 3)
    real, imaginary = (part.flatten(1, 2).double() for part in found.unbind(2))
    complex_found = torch.complex(real, imaginary * grid.sign[:, None])
    # what rounding makes of the sums in a bin: a prime n / 2 is hardly split
    rounding = torch.finfo(torch.float32).eps * (2 * grid.columns + grid.rows) ** 0.5
    assert (complex_found - expected[:, grid.bins]).abs().max() <= rounding * expected.abs().max()

    spectrum = torch.complex(*noise(2, 2, n // 2 + 1, 3, seed=seed + 1).double())
    expected = torch.fft.irfft(spectrum, n, dim=1)
    placed = spectrum[:, grid.bins]
    parts = torch.stack((placed.real, placed.imag * grid.sign[:, None]), dim=1).float()
    given_grid = parts.unflatten(2, (grid.kept, grid.columns)).transpose(1, 2)
    assert (InverseRealDFT(n)(given_grid) - expected).abs().max() <= rounding * expected.abs().max()


@pytest.mark.parametrize("n", [0, 2, 5, 1025])
def test_a_dft_that_is_not_built(n: int) -> None:
    with pytest.raises(ValueError, match=f"DFT of {n} samples"):
        RealDFT(n)


@given(st.integers(1, 40), st.integers(1, 50), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_the_nearest_code(rows: int, codes: int, dim: int, seed: int) -> None:
    """With small whole numbers many codes tie, and the lowest must be found."""
    random = np.random.default_rng(seed)
    x, codebook = (
        torch.from_numpy(random.integers(-2, 3, (n, dim))).float() for n in (rows, codes)
    )
    distance = (x[:, None] - codebook).norm(dim=2)
    tied = (distance == distance.amin(1, keepdim=True)).sum(1)
    few = tied <= 16  # the promise
    expected = nearest_code_reference(x, codebook)
    assert torch.equal(nearest_code_portable(x, codebook)[few], expected[few])


@pytest.mark.parametrize("spec", [MelSpec(), MelSpec(16000, 256, 64, 20, floor=1e-3)])
def test_log_mel(spec: MelSpec) -> None:
    wave = noise(2, 5000)
    found = PortableLogMel(spec)(wave)
    torch.testing.assert_close(found, log_mel(wave, spec, padding=(0, 0)), rtol=0, atol=1e-3)


@pytest.mark.parametrize(("n_fft", "hop"), [(1024, 256), (64, 32)])
def test_griffin_lim(n_fft: int, hop: int) -> None:
    waves = noise(2, 20, 2 * hop, amplitude=1)
    magnitudes = (1 + noise(2, 20, n_fft // 2 + 1, seed=1)).abs() * (3 / 8 * n_fft) ** 0.5
    x = torch.cat((waves, magnitudes), dim=2)
    state, step = FirstState(n_fft, hop)(x.transpose(1, 2)), GriffinLimStep(n_fft, hop, 0.9)
    for _ in range(2):
        state = step(*state)
    expected = griffin_lim(x, n_fft, hop, momentum=0.9, steps=2)[..., :hop]
    torch.testing.assert_close(state[0].transpose(1, 2), expected, rtol=1e-4, atol=1e-4)
