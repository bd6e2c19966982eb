"""The operations in plain PyTorch: what every other implementation is measured against.

float64 input is computed in float64, which makes these functions their own ground truth; any
narrower input is computed in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import ParamSpec

import torch
import torch.nn.functional as F
from torch import Tensor

from melcap.config import MelSpec
from melcap.ops import registry

TIE = 1e-6
"""Codes whose distances differ by less than this fraction tie, and the lowest index wins."""

EPSILON = 1e-6
"""What `convnext1d` and `channel_norm` add to a variance."""

QUIETEST_POWER = 1e-6
"""Of `griffin_lim`: a bin far below this is scaled, not set; where there is no phase, none is
made up."""

LEAST_SHARE = 0.03
"""A bin far below this share of its magnitude is scaled too: else rounding would become phase."""

STEP = registry.Tolerance(atol=5e-6, rtol=5e-6)
"""Of one step of `griffin_lim` where bins have a phase: where they have hardly one, steps magnify
what rounding left of it."""

_P = ParamSpec("_P")
_BLOCK = 64
_SCORES_AT_ONCE = {"cpu": 2**20}
"""On a CPU the scores stay in cache; elsewhere fewer, larger launches are better."""
_ROWS_AT_ONCE = 2**10
"""Rows whose candidates are measured together: where all codes tie, there are many."""
_PAIRS_AT_ONCE = 2**14


def working_dtype(x: Tensor) -> torch.dtype:
    """float64 stays float64; everything else is computed in float32."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _table(build: Callable[_P, Tensor]) -> Callable[_P, Tensor]:
    """Keep what `build` returns, as tensors that are good inside and outside of inference mode."""
    kept: Callable[_P, Tensor] = lru_cache(maxsize=32)(torch.inference_mode(False)(build))  # type: ignore[assignment]
    return kept


@_table
def mel_filters(
    sample_rate: int, n_fft: int, n_mels: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Triangular HTK-mel filters from 0 to sample_rate / 2, peak 1: [n_fft // 2 + 1, n_mels]."""
    cpu = torch.device("cpu")
    nyquist = torch.tensor(sample_rate / 2, dtype=torch.float64, device=cpu)
    top = 2595 * torch.log10(1 + nyquist / 700)
    mels = torch.linspace(0, 1, n_mels + 2, dtype=torch.float64, device=cpu) * top
    edges = 700 * (10 ** (mels / 2595) - 1)
    bins = torch.arange(n_fft // 2 + 1, dtype=torch.float64, device=cpu)[:, None]
    bins = bins * sample_rate / n_fft
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    filters: Tensor = torch.minimum(rising, falling).clamp(min=0)
    return filters.to(device=device, dtype=dtype)


@_table
def hann_window(length: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Periodic Hann window, computed in float64 and rounded once."""
    window = torch.hann_window(length, dtype=torch.float64, device="cpu")
    return window.to(device=device, dtype=dtype)


@_table
def inverse_window(n_fft: int, hop: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """What windows are multiplied with before they are added up, [n_fft]: Hann over the sum of
    squared Hann windows, which is a constant for hops of a quarter and less."""
    window = hann_window(n_fft, torch.float64, torch.device("cpu"))
    squares = window.view(-1, hop).square().sum(0).mean()
    return (window / squares).to(device=device, dtype=dtype)


def log_mel(
    wave: Tensor, spec: MelSpec, left: int, right: int, lengths: Tensor | None = None
) -> Tensor:
    """See `melcap.ops.log_mel`; `left` and `right` zeros are put around the wave."""
    mel, _ = _mel(_silence_behind(wave, lengths), spec, left, right)
    scaled = (mel.clamp(min=spec.floor).log() - spec.mean) / spec.std
    return scaled.transpose(1, 2).contiguous()


def _silence_behind(wave: Tensor, lengths: Tensor | None) -> Tensor:
    """The same wave [batch, samples], zero from each clip's length on."""
    if lengths is None:
        return wave
    place = torch.arange(wave.shape[1], device=wave.device)
    return torch.where(place < lengths[:, None], wave, 0)


def _mel(wave: Tensor, spec: MelSpec, left: int, right: int) -> tuple[Tensor, Tensor]:
    """Mel magnitudes [batch, frames, n_mels] and the complex spectrum under them."""
    dtype, device = working_dtype(wave), wave.device
    frames = F.pad(wave.to(dtype), (left, right)).unfold(-1, spec.n_fft, spec.hop)
    spectrum = torch.fft.rfft(frames * hann_window(spec.n_fft, dtype, device))
    filters = mel_filters(spec.sample_rate, spec.n_fft, spec.n_mels, dtype, device)
    # `abs` of complex numbers guards against overflow, at twice the time
    squares = torch.view_as_real(spectrum).square()
    return (squares[..., 0] + squares[..., 1]).sqrt() @ filters, spectrum


def log_mel_gradient(
    upstream: Tensor,
    wave: Tensor,
    spec: MelSpec,
    left: int,
    right: int,
    lengths: Tensor | None = None,
) -> Tensor:
    """Gradient of `log_mel` with respect to the wave, written out step by step."""
    dtype, device = working_dtype(wave), wave.device
    mel, spectrum = _mel(_silence_behind(wave, lengths), spec, left, right)
    d_mel = torch.where(mel > spec.floor, upstream.transpose(1, 2) / (spec.std * mel), 0)
    filters = mel_filters(spec.sample_rate, spec.n_fft, spec.n_mels, dtype, device)
    d_spectrum = spectrum.sgn() * (d_mel @ filters.t())
    d_spectrum[..., 1 : (spec.n_fft + 1) // 2] /= 2
    d_frames = torch.fft.irfft(d_spectrum, spec.n_fft, norm="forward")
    d_frames *= hann_window(spec.n_fft, dtype, device)
    padded = F.fold(
        d_frames.transpose(1, 2),
        (1, (mel.shape[1] - 1) * spec.hop + spec.n_fft),
        (1, spec.n_fft),
        stride=(1, spec.hop),
    ).flatten(1)
    cut = F.pad(padded, (-left, wave.shape[1] + left - padded.shape[1])).to(wave.dtype)
    return _silence_behind(cut, lengths)


def nearest_code(x: Tensor, codebook: Tensor) -> Tensor:
    """See `melcap.ops.nearest_code`.

    A matrix product scores every code, x.c - |c|^2 / 2. Its rounding could swap close codes, so
    those within its error bound of the best are measured again, as differences in float64. They
    are looked for by the maxima of blocks of codes, and then in the blocks that may hold one.
    """
    dtype = working_dtype(x)
    rows, codes = x.to(dtype), codebook.to(dtype)
    half_norms = codes.square().sum(1, keepdim=True) / 2
    # One factor more is faster than a product to which the norms are added.
    by_code = torch.cat((codes, -half_norms), dim=1)
    spare = by_code.new_zeros(-len(codes) % _BLOCK, by_code.shape[1])
    spare[:, -1] = -torch.inf
    by_code = torch.cat((by_code, spare))
    unit = torch.finfo(dtype).eps
    if dtype == torch.float32 and torch.get_float32_matmul_precision() != "highest":
        unit = 2.0**-8
    error = (codes.shape[1] + 4) * unit + 4 * TIE
    reach = codes.norm(dim=1).max()
    at_once = max(1, _SCORES_AT_ONCE.get(x.device.type, 2**26) // len(codes))
    # one buffer: pages that are new to the process cost as much as the product
    scores = rows.new_empty(len(by_code), min(at_once, len(rows)))
    found = [rows.new_empty(0, dtype=torch.int32)]
    for part in rows.split(max(_ROWS_AT_ONCE, at_once)):
        factors = F.pad(part, (0, 1), value=1.0)
        peaks = rows.new_empty(len(by_code) // _BLOCK, len(part))
        for some, peak in zip(factors.split(at_once), peaks.split(at_once, dim=1), strict=True):
            torch.mm(by_code, some.t(), out=scores[:, : len(some)])
            torch.amax(scores[:, : len(some)].unflatten(0, (-1, _BLOCK)), 1, out=peak)
        bound = peaks.amax(0) - error * (part.norm(dim=1) + reach).square()
        # where squares overflow the bound is NaN, and every code is measured
        block, row = (~(peaks < bound)).nonzero(as_tuple=True)
        pairs = [
            _candidates(by_code, factors, bound, *some)
            for some in zip(
                row.split(_PAIRS_AT_ONCE // _BLOCK),
                block.split(_PAIRS_AT_ONCE // _BLOCK),
                strict=True,
            )
        ]
        row, code = (torch.cat(each) for each in zip(*pairs, strict=True))
        found.append(_lowest_of_the_nearest(part, codes, row, code.clamp(max=len(codes) - 1)))
    return torch.cat(found)


def _candidates(
    by_code: Tensor, factors: Tensor, bound: Tensor, row: Tensor, block: Tensor
) -> tuple[Tensor, Tensor]:
    """(row, code) wherever, of pairs (row, block of codes), the score is not below the bound."""
    codes = by_code.unflatten(0, (-1, _BLOCK))[block]
    scores = torch.bmm(codes, factors[row, :, None])[..., 0]
    pair, place = (~(scores < bound[row, None])).nonzero(as_tuple=True)
    return row[pair], block[pair] * _BLOCK + place


def _lowest_of_the_nearest(rows: Tensor, codes: Tensor, row: Tensor, code: Tensor) -> Tensor:
    """Of the candidate pairs (row, code), each row's lowest code within `TIE` of its nearest."""
    pairs = zip(row.split(_PAIRS_AT_ONCE), code.split(_PAIRS_AT_ONCE), strict=True)
    distance = torch.cat([(rows[r].double() - codes[c].double()).norm(dim=1) for r, c in pairs])
    nearest = distance.new_full((len(rows),), torch.inf)
    nearest.scatter_reduce_(0, row, distance, "amin")
    tied = distance <= nearest[row] * (1 + TIE)
    lowest = code.new_full((len(rows),), len(codes))
    lowest.scatter_reduce_(0, row[tied], code[tied], "amin")
    return lowest.clamp(max=len(codes) - 1).to(torch.int32)  # a row with NaN is near to nothing


def activate(x: Tensor, activation: str, alpha: Tensor | None) -> Tensor:
    """Snake (x + sin^2(alpha x) / alpha, alpha per channel), LeakyReLU 0.1, GELU, SiLU or none."""
    if activation == "snake":
        assert alpha is not None
        a = alpha.to(x.dtype)[:, None]
        return x + torch.sin(a * x).square() / (a + 1e-9)
    if activation == "leaky_relu":
        return F.leaky_relu(x, 0.1)
    if activation == "gelu":
        return F.gelu(x)
    if activation == "silu":
        return F.silu(x)
    return x


def upsample_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: int,
    activation: str,
    alpha: Tensor | None,
    residual: Tensor | None,
) -> Tensor:
    """See `melcap.ops.upsample_conv1d`."""
    dtype = working_dtype(x)
    bias = None if bias is None else bias.to(dtype)
    active = activate(x.to(dtype), activation, alpha)
    y = F.conv_transpose1d(active, weight.to(dtype), bias, stride)
    left = (weight.shape[2] - stride) // 2
    y = y[..., left : left + x.shape[2] * stride]
    if residual is not None:
        y = y + residual
    return y.to(x.dtype).contiguous()


def convnext1d(
    x: Tensor,
    depthwise_weight: Tensor,
    depthwise_bias: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    expand_weight: Tensor,
    expand_bias: Tensor,
    contract_weight: Tensor,
    contract_bias: Tensor,
    scale: Tensor,
) -> Tensor:
    """See `melcap.ops.convnext1d`."""
    w = working_dtype(x)
    y = F.conv1d(x.to(w), depthwise_weight.to(w), depthwise_bias.to(w), groups=x.shape[1])
    y = y.transpose(1, 2)
    y = F.layer_norm(y, norm_weight.shape, norm_weight.to(w), norm_bias.to(w), EPSILON)
    y = F.gelu(F.linear(y, expand_weight.to(w), expand_bias.to(w)))
    y = F.linear(y, contract_weight.to(w), contract_bias.to(w)) * scale.to(w)
    cut = depthwise_weight.shape[2] // 2
    return (x[..., cut : x.shape[2] - cut] + y.transpose(1, 2)).to(x.dtype).contiguous()


def griffin_lim(x: Tensor, n_fft: int, hop: int, momentum: float, steps: int) -> Tensor:
    """See `melcap.ops.griffin_lim`."""
    dtype, blocks = working_dtype(x), n_fft // hop
    window = hann_window(n_fft, dtype, x.device)
    inverse = inverse_window(n_fft, hop, dtype, x.device).view(blocks, hop)
    wave, before, magnitude = x.to(dtype).tensor_split((hop, 2 * hop), dim=2)
    reach = blocks - 1
    for _ in range(steps):
        moved = torch.lerp(before, wave, 1 + momentum)
        windows = moved.flatten(1).unfold(1, n_fft, hop) * window
        spectrum = torch.fft.rfft(windows)
        # `abs` of complex numbers guards against overflow, at twice the time
        squares = torch.view_as_real(spectrum).square()
        wanted = magnitude[:, blocks // 2 :][:, : spectrum.shape[1]]
        spectrum = spectrum * gain(squares[..., 0] + squares[..., 1], wanted)
        parts = torch.fft.irfft(spectrum, n_fft).unflatten(2, (blocks, hop))
        whole = parts.shape[1] - reach
        agreed = parts[:, :whole, reach] * inverse[reach]
        for k in range(1, blocks):
            agreed.addcmul_(parts[:, k : k + whole, reach - k], inverse[reach - k])
        before, magnitude = wave[:, reach:-reach], magnitude[:, reach:-reach]
        wave = agreed
    return torch.cat((wave, before, magnitude), dim=2)


def channel_norm(x: Tensor, weight: Tensor, bias: Tensor, activation: str) -> Tensor:
    """See `melcap.ops.channel_norm`."""
    w = working_dtype(x)
    last = x.movedim(1, -1).to(w)
    y = F.layer_norm(last, weight.shape, weight.to(w), bias.to(w), EPSILON)
    return activate(y, activation, None).to(x.dtype).movedim(-1, 1)


def channel_norm_gradient(
    upstream: Tensor, x: Tensor, weight: Tensor, bias: Tensor, activation: str
) -> tuple[Tensor, ...]:
    """The gradients of x, weight and bias; what the forward pass knew is computed again."""
    w, shape = working_dtype(x), weight.shape
    last, factor, shift = x.movedim(1, -1).to(w), weight.to(w), bias.to(w)
    y, mean, inverse = torch.native_layer_norm(last, shape, factor, shift, EPSILON)
    given = upstream.movedim(1, -1).to(w)
    if activation == "silu":
        given = torch.ops.aten.silu_backward(given, y)
    to_x, to_weight, to_bias = torch.ops.aten.native_layer_norm_backward(
        given, last, shape, mean, inverse, factor, shift, [True, True, True]
    )
    return to_x.to(x.dtype).movedim(-1, 1), to_weight.to(weight.dtype), to_bias.to(bias.dtype)


def gain(power: Tensor, wanted: Tensor) -> Tensor:
    """What turns bins of this power into bins of the magnitude wanted, where they have a phase."""
    least = torch.addcmul(power, wanted, wanted, value=LEAST_SHARE**2) + QUIETEST_POWER
    return wanted * torch.rsqrt(least)


for _name, _tolerance in {
    "log_mel": registry.Tolerance(atol=1e-3, rtol=0.0),
    "nearest_code": registry.Tolerance(atol=0.0, rtol=TIE),
    "upsample_conv1d": registry.Tolerance(atol=2e-5, rtol=2e-5),
    "convnext1d": registry.Tolerance(atol=2e-5, rtol=2e-5),
    "griffin_lim": STEP,
    "channel_norm": registry.Tolerance(atol=5e-6, rtol=5e-6),
}.items():
    registry.register(
        _name,
        "torch",
        registry.Implementation(globals()[_name], {torch.float32: _tolerance}, lambda *_: []),
    )
