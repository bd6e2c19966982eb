"""Layers equal their formulas or invert each other, and networks compile without a difference."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from melcap.codec import Codec
from melcap.config import CodecConfig
from melcap.model import layers
from melcap.model.layers import (
    ChannelNorm,
    Down2d,
    HaarMerge,
    HaarSplit,
    Output2d,
    ResBlock2d,
    Up2d,
)
from melcap.model.stages import Stage
from melcap.model.tokenizer import FromPicture, ToPicture, mel_decoder, mel_encoder
from melcap.model.vocoder import ISTFTHead, vocoder
from melcap.ops import griffin_lim
from tests.helpers import SMALL, draw_weights, noise


@given(rows=st.integers(1, 9), columns=st.integers(1, 9), seed=st.integers(0, 2**31))
def test_haar_is_orthonormal_and_invertible(rows: int, columns: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, 3, 2 * rows, 2 * columns, generator=generator, dtype=torch.float64)
    y = HaarSplit()(x)
    assert y.shape == (2, 12, rows, columns)
    torch.testing.assert_close(y.square().sum(), x.square().sum())
    torch.testing.assert_close(HaarMerge()(y), x)


def test_haar_as_convolutions(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU takes these in place of the chains of operations."""
    x = noise(2, 1, 6, 11, amplitude=1)
    for wanted, tolerance in ((torch.float32, 1e-6), (torch.float64, 1e-15)):
        given = x.to(wanted)
        chain = HaarSplit()(given)
        back = HaarMerge()(chain)
        with monkeypatch.context() as patched, torch.no_grad():
            patched.setattr(layers, "is_a_convolution", lambda _: True)
            bands = HaarSplit()(given)
            torch.testing.assert_close(bands, chain, atol=tolerance, rtol=0)
            torch.testing.assert_close(HaarMerge()(chain), back, atol=tolerance, rtol=0)


def test_haar_bands_of_a_constant_and_of_an_odd_number_of_steps() -> None:
    """A constant has one band that is not zero. An odd last step is left out, as in every stage."""
    assert HaarSplit()(torch.ones(1, 1, 2, 2)).flatten().tolist() == [2, 0, 0, 0]
    x = torch.randn(1, 1, 4, 11)
    assert torch.equal(HaarSplit()(x), HaarSplit()(x[..., :10]))


@pytest.mark.parametrize("overlap", [3, 4, 5, 6, 7, 8])
@pytest.mark.parametrize("hop", [2, 6, 16, 64])
def test_the_head_inverts_a_short_time_transform(overlap: int, hop: int) -> None:
    """The head returns the wave for its spectra under Hann windows, step i around hop i."""
    steps, n_fft = 2 * overlap + 6, overlap * hop
    head = ISTFTHead(3, hop, overlap)
    head.linear = torch.nn.Identity()  # type: ignore[assignment]
    reach = (n_fft - hop) / 2
    assert reach.is_integer()
    wave = noise(1, steps * hop + 2 * int(reach), seed=7)
    window = torch.hann_window(n_fft)
    spectrum = torch.fft.rfft(wave.unfold(-1, n_fft, hop) * window)
    found = head(torch.cat((spectrum.abs().log(), spectrum.angle()), dim=-1).transpose(1, 2))
    assert head.left == head.right
    asked = wave[:, int(reach) + head.left * hop :][:, : (steps - 2 * head.left) * hop]
    torch.testing.assert_close(found, asked, atol=2e-5, rtol=0)


def test_the_head_bounds_its_magnitudes() -> None:
    head = ISTFTHead(4, 8, 4)
    with torch.no_grad():
        head.linear.weight.mul_(1e6)
    wave = head(noise(1, 4, 50, amplitude=1e4))
    assert torch.isfinite(wave).all()
    assert wave.abs().max() <= math.exp(6) * 4


def test_spectra_of_real_waves_are_inverted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The outer bins have no imaginary part; cuFFT would add it for some numbers of windows."""
    spectra = []
    inverse = torch.fft.irfft

    def watched(spectrum: Tensor, n: int) -> Tensor:
        spectra.append(spectrum)
        return inverse(spectrum, n)

    monkeypatch.setattr(torch.fft, "irfft", watched)
    head = ISTFTHead(4, 8, 4)
    head(torch.randn(2, 4, 9)).sum().backward()
    griffin_lim(torch.rand(1, 12, 49), 32, 16, steps=2)
    assert len(spectra) == 3
    for spectrum in spectra:
        assert not spectrum.imag[..., [0, -1]].any()
        assert spectrum.imag[..., 1:-1].all()
    assert head.linear.weight.grad is not None


def test_channel_norm_normalises_each_position_alone() -> None:
    norm = ChannelNorm(8)
    x = torch.randn(1, 8, 5, 7)
    y = norm(x)
    torch.testing.assert_close(y.mean(1), torch.zeros(1, 5, 7), atol=1e-6, rtol=0)
    torch.testing.assert_close(y.var(1, correction=0), torch.ones(1, 5, 7), atol=1e-3, rtol=0)
    changed = x.clone()
    changed[..., 3:] = 100.0
    assert torch.equal(norm(changed)[..., :3], y[..., :3])


def test_tokenizer_blocks_equal_their_formulas() -> None:
    """Compare with formulas in which SiLU follows each norm; no weight is zero or one."""
    torch.manual_seed(0)
    block, end, down, up = ResBlock2d(6), Output2d(6, 4), Down2d(6, 4), Up2d(6, 4)
    for module in (block, end, down, up):
        for parameter in module.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
    x = torch.randn(2, 6, 4, 10)

    def normed(x: Tensor, norm: ChannelNorm) -> Tensor:
        last = x.movedim(1, -1)
        return F.layer_norm(last, (6,), norm.weight, norm.bias, 1e-6).movedim(-1, 1)

    middle = block.conv1(F.silu(normed(x, block.norm1)))
    expected = x[..., 1:-1] + block.conv2(F.silu(normed(middle, block.norm2)))
    torch.testing.assert_close(block(x), expected)
    torch.testing.assert_close(end(x), end.conv(F.silu(normed(x, end.norm))))
    torch.testing.assert_close(down(x), down.conv(normed(x, down.norm)))
    torch.testing.assert_close(up(x), up.conv(normed(x, up.norm)))


def test_a_stride_in_time_alone_keeps_the_rows() -> None:
    """Each row depends on its own pairs of steps alone, by the same function."""
    torch.manual_seed(0)
    down, up = Down2d(6, 4, (1, 2)), Up2d(6, 4, (1, 2))
    x = torch.randn(2, 6, 3, 10)
    assert (down.down, down.up, up.down, up.up) == (2, 1, 1, 2)
    shorter, longer = down(x), up(x)
    assert shorter.shape == (2, 4, 3, 5)
    assert longer.shape == (2, 4, 3, 20)
    with torch.no_grad():
        pairs = torch.stack((down.norm(x)[..., 0::2], down.norm(x)[..., 1::2]), dim=-1)
        expected = torch.einsum("bcrtk,ock->bort", pairs, down.conv.weight[:, :, 0])
        torch.testing.assert_close(shorter, expected + down.conv.bias[:, None, None])
        expected = torch.einsum("bcrt,cok->bortk", up.norm(x), up.conv.weight[:, :, 0]).flatten(-2)
        torch.testing.assert_close(longer, expected + up.conv.bias[:, None, None])


def test_networks_are_made_of_stages_without_running_statistics() -> None:
    config = CodecConfig()
    for chain in (mel_encoder(config), mel_decoder(config), vocoder(config)):
        assert all(isinstance(stage, Stage) for stage in chain)
        for module in chain.modules():
            assert "BatchNorm" not in type(module).__name__
            assert "GroupNorm" not in type(module).__name__
            assert "InstanceNorm" not in type(module).__name__


def test_a_channel_axis_is_added_and_removed() -> None:
    mel = noise(2, 6, 5)
    assert ToPicture()(mel).shape == (2, 1, 6, 5)
    assert torch.equal(FromPicture()(ToPicture()(mel)), mel)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["encoder", "vocoder"])
def test_compiled_networks_equal_eager_ones(name: str) -> None:
    """Each network is one graph, and a second length compiles at most once more.

    The networks are small, with every kind of layer, because compiling takes long.
    """
    tokenizer = replace(
        SMALL.tokenizer, channels=(6, 8), encoder_blocks=(0, 1), decoder_blocks=(1, 0)
    )
    vocoder = replace(SMALL.vocoder, griffin_lim_steps=2)
    small = draw_weights(Codec(replace(SMALL, tokenizer=tokenizer, vocoder=vocoder)))
    network: Any = getattr(small, name)
    frames = {"encoder": 50, "vocoder": 60}[name]
    torch._dynamo.reset()
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
    with (
        torch.no_grad(),
        torch._dynamo.config.patch(recompile_limit=2, fail_on_recompile_limit_hit=True),
    ):
        for longer in (0, 8):
            x = noise(2, SMALL.mel.n_mels, frames + longer, amplitude=1)
            torch.testing.assert_close(compiled(x), network(x), rtol=1e-4, atol=1e-5)
