"""The codecs that are timed: melcap on every backend, and its peers, each as two calls on a batch.

The published MelCap architecture ("base") and peers are built from their published configurations
with random weights, which take the same time. Each gets audio at its own rate, and encodes at the
setting that is nearest to melcap's bit rate or cheaper.
"""

from __future__ import annotations

import os
import runpy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from tempfile import TemporaryDirectory

import torch
from paths import ROOT
from torch import Tensor

import melcap
from melcap.audio_codec import AudioCodec
from melcap.base_codec import BaseCodec
from melcap.bench.speed import Contender, contender_of
from melcap.codec import Codec, require_own
from melcap.config import BaseConfig
from melcap.errors import MelcapError
from melcap.ops.registry import SWITCH, switched_off, unavailable

CONVOLUTIONS = ("conv2d", "resblock2d")
"""The operations that cuDNN runs where their kernels are switched off."""
EXAMPLES = ROOT / "examples"


class Skipped(Exception):
    """The reason why a contender cannot be timed here."""


def lite() -> AudioCodec:
    """Return the codec that ships, on a CPU."""
    return melcap.load()


def fast() -> AudioCodec:
    """Return the codec that ships with the quality "fast", on a CPU."""
    return melcap.load(quality="fast")


def base() -> AudioCodec:
    """Return a codec of the published architecture and size on a CPU, with random weights.

    The weights are the same in every call. PyTorch's defaults would give latents so small that few
    entries of the codebook are nearest to any, so the last layer of the encoder is louder.
    """
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        codec = BaseCodec(BaseConfig(), "melcap-base, random weights")
    codec.eval().requires_grad_(False)
    codec.encoder.quant_conv.weight.mul_(8)
    return codec


CODECS: dict[str, Callable[[], AudioCodec]] = {
    "melcap": lite,
    "melcap fast": fast,
    "melcap base": base,
}
"""Functions that build melcap's codecs, by the names that their contenders begin with."""


def codec_of(contender: str) -> str | None:
    """Return which of `CODECS` a contender of this name runs, or None for a peer."""
    name = contender.partition(",")[0]
    return name if name in CODECS else None


@contextmanager
def switched_off_too(operations: Sequence[str]) -> Iterator[None]:
    """Switch the kernels of operations off in the block, besides those that are off already."""
    before = os.environ.get(SWITCH, "")
    os.environ[SWITCH] = ",".join([*operations, *([before] if before else [])])
    try:
        yield
    finally:
        os.environ[SWITCH] = before


def melcap_on(
    backend: str, codec: str = "melcap", without: Sequence[str] = ()
) -> Callable[[str], Contender]:
    """Return a function that builds a codec of melcap on a device.

    Args:
        backend: "torch", "triton", or "triton + CUDA graphs". Graphs are used for short inputs in
            the last alone, and must be possible there.
        codec: one of `CODECS`.
        without: operations that PyTorch runs in place of their kernels.
    """

    def build(device: str) -> Contender:
        if backend != "torch":
            reasons = unavailable("triton") or ([] if device != "cpu" else ["this is a CPU"])
            if reasons:
                raise Skipped("; ".join(reasons))
        built = CODECS[codec]().to(device)
        if backend.endswith("graphs"):
            require_own(built, "CUDA graphs").use_graphs()
        elif isinstance(built, Codec):
            built.use_graphs(False)
        used, name = backend.partition(" ")[0], f"{codec}, {backend}"
        off = sorted({*switched_off(), *without})
        if used == "triton" and off:  # by name, it refuses what is switched off
            used, name = "auto", f"{name} without {', '.join(off)}"
        contender = contender_of(built, used, name)
        if not without:
            return contender
        inside = switched_off_too(without)  # a context manager that is a decorator too
        encode, decode = inside(contender.encode), inside(contender.decode)
        return replace(contender, encode=encode, decode=decode)

    return build


def melcap_onnx(device: str) -> Contender:
    """Build melcap's ONNX graphs for ONNX Runtime, on a CPU."""
    if device != "cpu":
        raise Skipped("the graphs are run on CPUs only")
    from melcap.onnx import export

    example = runpy.run_path(str(EXAMPLES / "onnx_codec.py"))
    codec = melcap.load()
    with TemporaryDirectory() as folder:
        paths = export(codec, folder)
        encoder, decoder = (
            example["Graph"](paths[name], torch.get_num_threads())
            for name in ("encoder", "decoder")
        )
    rate = codec.config.mel.sample_rate
    return Contender(
        "melcap, ONNX Runtime",
        rate,
        device,
        lambda wave: example["encode"](encoder, wave.numpy()),
        lambda tokens: torch.from_numpy(example["decode"](decoder, tokens)),
    )


def encodec(device: str) -> Contender:
    """Build EnCodec at 24 kHz and 3 kbps: 4 codebooks of 75 tokens/s."""
    from transformers import EncodecConfig, EncodecModel

    model = EncodecModel(EncodecConfig()).eval().to(device)
    return Contender(
        "EnCodec 24 kHz",
        24000,
        device,
        lambda wave: model.encode(wave[:, None], bandwidth=3.0),
        lambda made: model.decode(made.audio_codes, made.audio_scales, None)[0],
    )


def dac(device: str) -> Contender:
    """Build DAC at 44.1 kHz: 9 codebooks, 7.75 kbps."""
    from transformers import DacConfig, DacModel

    config = DacConfig(
        sampling_rate=44100,
        downsampling_ratios=[2, 4, 8, 8],
        upsampling_ratios=[8, 8, 4, 2],
        encoder_hidden_size=64,
        decoder_hidden_size=1536,
        n_codebooks=9,
    )
    model = DacModel(config).eval().to(device)
    hop = config.hop_length
    return Contender(
        "DAC 44.1 kHz",
        44100,
        device,
        lambda wave: model.encode(_whole(wave, hop)[:, None]).audio_codes,
        lambda codes: model.decode(audio_codes=codes).audio_values,
    )


def mimi(device: str) -> Contender:
    """Build Mimi at 24 kHz: 8 codebooks of 12.5 tokens/s, 1.1 kbps, as in Moshi."""
    from transformers import MimiConfig, MimiModel

    model = MimiModel(MimiConfig()).eval().to(device)
    return Contender(
        "Mimi 24 kHz",
        24000,
        device,
        lambda wave: model.encode(wave[:, None], num_quantizers=8).audio_codes,
        lambda codes: model.decode(codes).audio_values,
    )


def snac(device: str) -> Contender:
    """Build SNAC at 44.1 kHz: 4 codebooks at 14 to 115 tokens/s, 2.6 kbps."""
    from snac import SNAC

    model = SNAC(
        sampling_rate=44100,
        encoder_dim=64,
        encoder_rates=[2, 3, 8, 8],
        decoder_dim=1536,
        decoder_rates=[8, 8, 3, 2],
        attn_window_size=32,
        codebook_size=4096,
        codebook_dim=8,
        vq_strides=[8, 4, 2, 1],
    )
    model = model.eval().to(device)
    return Contender(
        "SNAC 44.1 kHz",
        44100,
        device,
        lambda wave: model.encode(wave[:, None]),
        lambda codes: model.decode(codes),
    )


def vocos(device: str) -> Contender:
    """Build the Vocos vocoder of 24 kHz mels; encoding is its mel spectrogram alone."""
    from vocos import Vocos
    from vocos.feature_extractors import MelSpectrogramFeatures
    from vocos.heads import ISTFTHead
    from vocos.models import VocosBackbone

    model = Vocos(
        MelSpectrogramFeatures(24000, n_fft=1024, hop_length=256, n_mels=100, padding="center"),
        VocosBackbone(input_channels=100, dim=512, intermediate_dim=1536, num_layers=8),
        ISTFTHead(dim=512, n_fft=1024, hop_length=256, padding="center"),
    )
    model = model.eval().to(device)
    return Contender(
        "Vocos 24 kHz (no tokens)", 24000, device, model.feature_extractor, model.decode
    )


MELCAP: dict[str, Callable[[str], Contender]] = {
    "melcap-torch": melcap_on("torch"),
    "melcap-fast": melcap_on("torch", "melcap fast"),
    "melcap-triton": melcap_on("triton"),
    "melcap-cudnn": melcap_on("triton", without=CONVOLUTIONS),
    "melcap-graphs": melcap_on("triton + CUDA graphs"),
    "melcap-onnx": melcap_onnx,
    "base-torch": melcap_on("torch", "melcap base"),
    "base-triton": melcap_on("triton", "melcap base"),
}
PEERS: dict[str, Callable[[str], Contender]] = {
    "encodec": encodec,
    "mimi": mimi,
    "snac": snac,
    "dac": dac,
    "vocos": vocos,
}
SLOW = ("base-torch", "snac", "dac")
"""Contenders that take about real time on a CPU."""


def build(names: list[str], device: str) -> Iterator[tuple[str, Contender | Skipped]]:
    """Yield each name with its contender on the device, or with the reason why there is none."""
    for name in names:
        try:
            yield name, (MELCAP | PEERS)[name](device)
        except Skipped as reason:
            yield name, reason
        except (
            ImportError,
            OSError,
            MelcapError,
        ) as error:  # OSError: installed, but cannot be loaded
            yield name, Skipped(f"{name} cannot be imported: {error}")


def _whole(wave: Tensor, hop: int) -> Tensor:
    """Return the wave, with zeros after it up to a whole number of hops."""
    return torch.nn.functional.pad(wave, (0, -wave.shape[-1] % hop))
