"""List the cases on which `device_gates.py` compares every kernel with float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from melcap.bench.kernels import squared_distances
from melcap.config import MelSpec
from melcap.ops import (
    channel_norm,
    conv2d,
    convnext1d,
    griffin_lim,
    log_mel,
    nearest_code,
    polar_istft,
    resblock2d,
    upsample_conv1d,
)

Case = tuple[str, str, torch.dtype, "Gate", "Gate"]
"""Operation, name of the case, dtype, the result on the backend in force, and that in float64."""

Gate = Callable[[], Tensor]
SINGLE, BRAIN = torch.float32, torch.bfloat16


class Draws:
    """A source of random tensors on a device, the same in every run."""

    def __init__(self, device: str) -> None:
        self.device = device
        self._generator = torch.Generator(device).manual_seed(0)

    def __call__(self, *shape: int, fan_in: int = 1, dtype: torch.dtype = SINGLE) -> Tensor:
        """Draw normal numbers with a variance of 1 / fan_in."""
        drawn = torch.randn(shape, device=self.device, generator=self._generator)
        return (drawn / fan_in**0.5).to(dtype)


def exact(*tensors: Tensor) -> list[Tensor]:
    """Return the tensors in float64."""
    return [tensor.double() for tensor in tensors]


def cases(draw: Draws, small: bool) -> Iterator[Case]:
    """Yield the cases, those of the kernels that have not run on a device yet first."""
    yield from _channel_norms(draw, small)
    yield from _convolutions(draw, small)
    yield from _residual_blocks(draw, small)
    for samples in (9001,) if small else (9001, 441_000):
        wave = 0.1 * draw(1 if small else 8, samples)
        yield (
            "log_mel",
            f"{len(wave)} x {samples}",
            SINGLE,
            lambda w=wave: log_mel(w, MelSpec()),
            lambda w=wave: log_mel(w.double(), MelSpec()),
        )
    for rows, codes in ((13, 300),) if small else ((13, 8192), (2584, 8192), (165_391, 8192)):
        x, codebook = draw(rows, 8), draw(codes, 8)
        yield (
            "nearest_code",
            f"{rows} x {codes} x 8",
            SINGLE,
            lambda x=x, c=codebook: squared_distances(x, c, nearest_code(x, c)),
            lambda x=x, c=codebook: _least_distances(x, c),
        )
    for dtype in (SINGLE,) if small else (SINGLE, torch.float16, BRAIN):
        width, hidden, steps = (16, 32, 20) if small else (256, 512, 1733)
        block = [
            draw(1 if small else 8, width, steps, dtype=dtype),
            draw(width, 1, 7, fan_in=7, dtype=dtype),
            *(draw(width, dtype=dtype) for _ in range(3)),
            draw(hidden, width, fan_in=width, dtype=dtype),
            draw(hidden, dtype=dtype),
            draw(width, hidden, fan_in=hidden, dtype=dtype),
            *(draw(width, dtype=dtype) for _ in range(2)),
        ]
        yield (
            "convnext1d",
            f"{width}/{hidden}, {len(block[0])} x {steps}",
            dtype,
            lambda b=block: convnext1d(*b),
            lambda b=block: convnext1d(*exact(*b)),
        )
    n_fft, hop, frames = (256, 64, 30) if small else (1024, 256, 1801)
    wave, lift = (
        draw(1 if small else 8, frames, hop),
        draw(1 if small else 8, frames, n_fft // 2 + 1),
    )
    moved = wave + 0.1 * draw(*wave.shape)
    x = torch.cat((wave, moved, (1 + lift.abs()) * (3 / 8 * n_fft) ** 0.5), dim=2)
    for steps in (1,) if small else (1, 4):
        yield (
            "griffin_lim",
            f"{n_fft}/{hop}, {steps} steps, {len(x)} x {frames}",
            SINGLE,
            lambda s=steps: griffin_lim(x, n_fft, hop, steps=s),
            lambda s=steps: griffin_lim(x.double(), n_fft, hop, steps=s),
        )
    spectra, window = draw(1 if small else 8, frames, n_fft + 2), torch.hann_window(n_fft).to(x)
    yield (
        "polar_istft",
        f"{n_fft}/{hop}, {len(spectra)} x {frames}",
        SINGLE,
        lambda: polar_istft(spectra, window, hop, loudest=6.0),
        lambda: polar_istft(spectra.double(), window.double(), hop, loudest=6.0),
    )
    into, out, stride, steps = (16, 8, 2, 30) if small else (256, 128, 4, 1723)
    layer = draw(2, into, steps), draw(into, out, 2 * stride, fan_in=2 * into), draw(out)
    alpha = draw(into).abs() + 0.5
    yield (
        "upsample_conv1d",
        f"{into} to {out}, x{stride}, 2 x {steps}",
        SINGLE,
        lambda: upsample_conv1d(*layer, stride, activation="snake", alpha=alpha),
        lambda: upsample_conv1d(*exact(*layer), stride, activation="snake", alpha=alpha.double()),
    )


def _channel_norms(draw: Draws, small: bool) -> Iterator[Case]:
    """Yield forward and backward passes, at the tokenizer's widths and at a width of 51."""
    shapes = (
        ((2, 32, 3, 7), (1, 51, 2, 5))
        if small
        else ((8, 32, 48, 437), (8, 128, 12, 109), (3, 51, 7, 101))
    )
    for shape in shapes:
        for dtype in (SINGLE,) if small else (SINGLE, BRAIN):
            x = draw(*shape, dtype=dtype).contiguous(memory_format=torch.channels_last)
            upstream = draw(*shape, dtype=dtype).contiguous(memory_format=torch.channels_last)
            weight, bias = draw(shape[1]), draw(shape[1])
            name = " x ".join(map(str, shape))

            yield (
                "channel_norm",
                name,
                dtype,
                lambda x=x, w=weight, b=bias: channel_norm(x, w, b, activation="silu"),
                lambda x=x, w=weight, b=bias: channel_norm(*exact(x, w, b), activation="silu"),
            )
            yield (
                "channel_norm",
                f"{name}, gradients",
                dtype,
                lambda x=x, w=weight, b=bias, u=upstream: _gradients(u, x, w, b),
                lambda x=x, w=weight, b=bias, u=upstream: _gradients(*exact(u, x, w, b)),
            )


def _convolutions(draw: Draws, small: bool) -> Iterator[Case]:
    """Yield the convolutions around the tokenizer's blocks, and those of base."""
    norm, down, up = "norm", {"stride": (2, 2)}, {"stride": (2, 2), "transposed": True}
    same, bounded = {"padding": (1, 0)}, {"padding": (1, 1), "bound": 1.0}
    layers: list[tuple[tuple[int, ...], tuple[int, ...], str, dict[str, Any]]] = [
        ((8, 4, 48, 437), (32, 4, 3, 3), "", same),
        ((8, 32, 48, 437), (64, 32, 2, 2), norm, down),
        ((8, 64, 24, 218), (128, 64, 2, 2), norm, down),
        ((8, 128, 12, 109), (8, 128, 3, 3), norm, same),
        ((8, 8, 12, 109), (128, 8, 3, 3), "", same),
        ((8, 128, 12, 109), (128, 64, 2, 2), norm, up),
        ((2, 256, 24, 217), (512, 256, 3, 3), "", bounded),
        ((2, 512, 12, 109), (512, 512, 3, 3), "", {"padding": (1, 1)}),
        ((3, 51, 7, 101), (77, 51, 3, 5), norm, same),
    ]
    if small:
        layers = [((1, 4, 3, 9), (5, 4, 3, 3), norm, same), ((1, 4, 3, 9), (5, 4, 3, 3), "", same)]
    for shape, sizes, before, arguments in layers:
        inputs = shape[1]
        weight = draw(*sizes, fan_in=inputs * sizes[2] * sizes[3])
        bias = draw(sizes[1] if arguments.get("transposed") else sizes[0])
        x = draw(*shape).contiguous(memory_format=torch.channels_last)
        x = x.tanh() if "bound" in arguments else x
        gain, shift = draw(inputs), draw(inputs)
        activation = "silu" if before and arguments is same else "none"
        yield (
            "conv2d",
            f"{' x '.join(map(str, shape))}, weight {' x '.join(map(str, sizes))}",
            SINGLE,
            lambda x=x, w=weight, b=bias, n=(gain, shift) if before else None, k=arguments,
            a=activation: conv2d(x, w, b, norm=n, activation=a, **k),
            lambda x=x, w=weight, b=bias, n=(gain, shift) if before else (), k=arguments,
            a=activation: conv2d(
                *exact(x, w, b), norm=tuple(exact(*n)) or None, activation=a, **k
            ),
        )  # fmt: skip


def _residual_blocks(draw: Draws, small: bool) -> Iterator[Case]:
    """Yield the tokenizer's blocks, and one of a width of 51."""
    shapes = [(8, 32, 48, 437), (8, 64, 24, 218), (8, 128, 12, 109), (3, 51, 7, 101)]
    for shape in [(1, 6, 3, 9)] if small else shapes:
        channels = shape[1]
        x = draw(*shape).contiguous(memory_format=torch.channels_last)
        block = [
            *(draw(channels) for _ in range(2)),
            draw(channels, channels, 3, 3, fan_in=9 * channels),
            *(draw(channels) for _ in range(3)),
            draw(channels, channels, 3, 1, fan_in=3 * channels),
            draw(channels),
        ]
        yield (
            "resblock2d",
            " x ".join(map(str, shape)),
            SINGLE,
            lambda x=x, b=block: resblock2d(x, *b),
            lambda x=x, b=block: resblock2d(*exact(x, *b)),
        )


def _gradients(upstream: Tensor, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return the gradients of input, weight and bias in one row.

    Those of weight and bias are sums over all positions. They are divided by the number of
    positions, so that one tolerance fits all.
    """
    of_x, of_weight, of_bias = torch.ops.melcap.channel_norm_gradient(
        upstream, x, weight, bias, "silu"
    )
    positions = x.numel() // x.shape[1]
    return torch.cat(
        [of_x.flatten().double(), of_weight.double() / positions, of_bias.double() / positions]
    )


def _least_distances(x: Tensor, codebook: Tensor) -> Tensor:
    """Return the squared distances to the nearest entries: of two that tie, either is right."""
    book = codebook.double()
    return torch.cat(
        [(part.double()[:, None] - book).square().sum(2).amin(1) for part in x.split(1024)]
    )
