"""Run every kernel once, at small and awkward sizes, for compute-sanitizer in `make gpu`.

There, each access to other memory is a fault; other tests see NaN.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import melcap
from melcap.config import MelSpec
from melcap.kernels.launch import launched
from melcap.ops import (
    channel_norm,
    conv2d,
    convnext1d,
    griffin_lim,
    log_mel,
    nearest_code,
    polar_istft,
    registry,
    resblock2d,
    upsample_conv1d,
)
from tests.helpers import noise

pytestmark = pytest.mark.gpu
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def close(operation: str, found: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    """Check the registry's tolerance, measured as profiling/kernels.py does."""
    tolerance = registry.implementation(operation, "triton").tolerances[dtype]
    allowed = tolerance.atol + tolerance.rtol * expected.abs().max()
    assert (found - expected).abs().max() <= allowed


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("spec", [MelSpec(), MelSpec(16000, 256, 100, 33), MelSpec(n_fft=4096)])
def test_log_mel(spec: MelSpec, dtype: torch.dtype) -> None:
    wave = noise(3, 9001).to("cuda", dtype)
    lengths = torch.tensor([9001, 17, 5000], device="cuda")
    with melcap.use_backend("triton"):
        found = log_mel(wave, spec, lengths=lengths)
    close("log_mel", found.double(), log_mel(wave.double(), spec, lengths=lengths), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "codes", "dim"), [(13, 300, 20), (16391, 131, 33)])
def test_nearest_code(rows: int, codes: int, dim: int, dtype: torch.dtype) -> None:
    x, codebook = noise(rows, dim).to("cuda", dtype), noise(codes, dim, seed=1).to("cuda", dtype)
    codebook[codes // 2] = codebook[3]
    x[7] = codebook[3]
    with melcap.use_backend("triton"):
        found = nearest_code(x, codebook)
    with melcap.use_backend("torch"):
        assert torch.equal(found, nearest_code(x.double(), codebook.double()))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("channels_in", "channels_out", "kernel", "stride"),
    [(256, 128, 8, 4), (33, 7, 10, 5), (17, 40, 4, 2), (600, 3, 16, 16)],
)
def test_upsample_conv1d(
    channels_in: int, channels_out: int, kernel: int, stride: int, dtype: torch.dtype
) -> None:
    x = noise(2, channels_in, 75).to("cuda", dtype)
    weight = noise(channels_in, channels_out, kernel, seed=1).to("cuda", dtype)
    bias, alpha = (noise(n, seed=2).to("cuda", dtype) for n in (channels_out, channels_in))
    residual = noise(2, channels_out, 75 * stride, seed=3).to("cuda", dtype)
    given = x, weight, bias, stride
    exact = x.double(), weight.double(), bias.double(), stride
    with melcap.use_backend("triton"):
        found = upsample_conv1d(*given, activation="snake", alpha=alpha, residual=residual)
    expected = upsample_conv1d(
        *exact, activation="snake", alpha=alpha.double(), residual=residual.double()
    )
    close("upsample_conv1d", found.double(), expected, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("channels", "hidden", "kernel"), [(256, 512, 7), (51, 77, 31)])
def test_convnext1d(channels: int, hidden: int, kernel: int, dtype: torch.dtype) -> None:
    shapes = (
        (2, channels, 101),
        (channels, 1, kernel),
        (channels,),
        (channels,),
        (channels,),
        (hidden, channels),
        (hidden,),
        (channels, hidden),
        (channels,),
        (channels,),
    )
    arguments = [noise(*shape, seed=seed).to("cuda", dtype) for seed, shape in enumerate(shapes)]
    with melcap.use_backend("triton"):
        found = convnext1d(*arguments)
    expected = convnext1d(*(argument.double() for argument in arguments))
    close("convnext1d", found.double(), expected, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n_fft", "hop"), [(1024, 256), (256, 32), (4096, 1024)])
def test_griffin_lim(n_fft: int, hop: int, dtype: torch.dtype) -> None:
    blocks = noise(3, 33, 2 * hop)
    magnitude = 1 + noise(3, 33, n_fft // 2 + 1, seed=1).abs()
    x = torch.cat((blocks, magnitude), dim=2).to("cuda", dtype)
    with melcap.use_backend("triton"):
        found = griffin_lim(x, n_fft, hop, steps=2)
    close("griffin_lim", found.double(), griffin_lim(x.double(), n_fft, hop, steps=2), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [32, 51])
@pytest.mark.parametrize("last", [True, False])
def test_channel_norm(last: bool, channels: int, dtype: torch.dtype) -> None:
    x = noise(2, channels, 101).to("cuda", dtype)
    x = x.mT.contiguous().mT if last else x
    leaves = [x, *(noise(channels, seed=seed).to("cuda") for seed in (1, 2))]
    leaves = [leaf.requires_grad_() for leaf in leaves]
    with melcap.use_backend("triton"):
        found = channel_norm(*leaves, activation="silu")
        gradients = torch.autograd.grad(found.sum(), leaves)
    exact = [leaf.detach().double().requires_grad_() for leaf in leaves]
    expected = channel_norm(*exact, activation="silu")
    close("channel_norm", found.double(), expected, dtype)
    truth = torch.autograd.grad(expected.sum(), exact)
    for one, other in zip(gradients, truth, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("bound", [None, 4.0])
@pytest.mark.parametrize(("inputs", "outputs"), [(4, 32), (51, 130)])
def test_conv2d(inputs: int, outputs: int, bound: float | None) -> None:
    x = noise(2, inputs, 7, 41).to("cuda")
    weight, bias = (noise(*s, seed=1).to("cuda") for s in ((outputs, inputs, 3, 5), (outputs,)))
    rows, residual = noise(outputs, 4, 1).to("cuda"), noise(2, outputs, 4, 41).to("cuda")
    given = x, weight, bias
    exact = [tensor.double() for tensor in given]
    with melcap.use_backend("triton"):
        found = conv2d(
            *given, stride=(2, 1), padding=(1, 2), rows=rows, residual=residual, bound=bound
        )
    expected = conv2d(
        *exact, stride=(2, 1), padding=(1, 2), rows=rows.double(), residual=residual.double()
    )
    close("conv2d", found.double(), expected, torch.float32)


@pytest.mark.parametrize("channels", [51, 128])
def test_resblock2d(channels: int) -> None:
    c = channels
    shapes = ((c,), (c,), (c, c, 3, 3), (c,), (c,), (c,), (c, c, 3, 1), (c,))
    given = [noise(2, c, 5, 43).to("cuda")]
    given += [noise(*shape, seed=seed).to("cuda") for seed, shape in enumerate(shapes)]
    with melcap.use_backend("triton"):
        found = resblock2d(*given)
    expected = resblock2d(*(tensor.double() for tensor in given))
    close("resblock2d", found.double(), expected, torch.float32)


@pytest.mark.parametrize(("n_fft", "hop"), [(1024, 256), (256, 32), (4096, 1024)])
def test_polar_istft(n_fft: int, hop: int) -> None:
    x, window = noise(3, 33, n_fft + 2).to("cuda"), torch.hann_window(n_fft, device="cuda")
    with melcap.use_backend("triton"):
        found = polar_istft(x, window, hop, loudest=6.0)
    expected = polar_istft(x.double(), window.double(), hop, loudest=6.0)
    close("polar_istft", found.double(), expected, torch.float32)


def test_all_kernels_were_launched() -> None:
    assert {
        "log_mel_kernel",
        "split",
        "nominate",
        "decide",
        "upsample_conv1d_kernel",
        "convnext1d_norm",
        "convnext1d_mlp",
        "griffin_lim_step",
        "halves_kernel",
        "conv2d_kernel",
        "polar_istft_kernel",
        "channel_norm_kernel",
        "channel_norm_gradient_kernel",
    } <= set(launched)
