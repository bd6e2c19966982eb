"""The layout of the published checkpoints, and how their weights fit `BaseNetwork`.

There are two state dicts. That of stage 1 is the whole tokenizer; its encoder and codebook are
used. That of stage 2 has the mel decoder that was tuned together with the vocoder, and the vocoder.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from melcap.config import BaseConfig, BaseTokenizerConfig, BaseVocoderConfig

State = Mapping[str, Tensor]

CODEBOOK = "quantizer.embedding.weight"
PROJECTION = "feature_extractor.mel_decoder.0."
MEL_DECODER = "feature_extractor.mel_decoder.1."
_BAND_ORDER = [0, 2, 1, 3]
"""The order of the bands. The published Haar transform exchanges LH and HL, and halves all four."""
READ_OF_STAGE_1 = ("encoder.", "quant_conv.", "quantizer.")
"""The beginnings of the names of the tensors that are read of stage 1."""
READ_OF_STAGE_2 = (PROJECTION, MEL_DECODER, "backbone.", "head.")
"""The beginnings of the names of the tensors that are read of stage 2."""
MEL_FILTERS = "feature_extractor.mel_spec.mel_scale.fb"
WINDOWS = ("feature_extractor.mel_spec.spectrogram.window", "head.istft.window")
TABLES = (MEL_FILTERS, *WINDOWS)
"""Tensors that are computed here."""
_NAMES = {
    rf"^{re.escape(CODEBOOK)}$": "codebook.vectors",
    r"^quant_conv\.": "encoder.quant_conv.",
    rf"^{re.escape(PROJECTION)}": "decoder.post_quant_conv.",
    rf"^{re.escape(MEL_DECODER)}": "decoder.",
    r"^(backbone|head)\.": "vocoder.",
    r"\bgamma$": "scale",
    r"\bdwconv\b": "depthwise",
    r"\bpwconv1\b": "expand",
    r"\bpwconv2\b": "contract",
}
"""Patterns of parts of names, and their replacements."""


def config_of(stage1: State, stage2: State, activation: str, name: str) -> BaseConfig:
    """Return the configuration that the shapes and names of the tensors imply.

    Args:
        stage1: the tokenizer.
        stage2: the mel decoder and the vocoder.
        activation: "tanh" or "silu", which tensors do not tell.
        name: of the model.

    Raises:
        KeyError: for a missing tensor, by its name.
        WeightsError: for sizes that do not fit together.
    """
    channels = stage1["encoder.conv_in.weight"].shape[0]
    levels = range(_count(stage1, r"encoder\.down\.(\d+)\."))
    widths = [stage1[f"encoder.down.{level}.block.0.conv2.weight"].shape[0] for level in levels]
    attention = [level for level in levels if f"encoder.down.{level}.attn.0.q.weight" in stage1]
    entries, dim = stage1[CODEBOOK].shape
    hidden, width = stage2["backbone.convnext.0.pwconv1.weight"].shape
    return BaseConfig(
        name=name,
        tokenizer=BaseTokenizerConfig(
            channels=channels,
            multipliers=tuple(each // channels for each in widths),
            encoder_blocks=_count(stage1, r"encoder\.down\.0\.block\.(\d+)\."),
            decoder_blocks=_count(stage2, re.escape(MEL_DECODER) + r"up\.0\.block\.(\d+)\."),
            attention_levels=tuple(attention),
            activation=activation,
            z_channels=stage1["encoder.conv_out.weight"].shape[0],
            codebook_size=entries,
            codebook_dim=dim,
        ),
        vocoder=BaseVocoderConfig(
            dim=width, hidden=hidden, blocks=_count(stage2, r"backbone\.convnext\.(\d+)\.")
        ),
    )


def state_of(stage1: State, stage2: State) -> dict[str, Tensor]:
    """Return the weights of both stages under the names of `BaseNetwork`.

    Tensors that it does not use are left out: the mel decoder of stage 1, discriminators, and
    tables that are computed.

    Raises:
        KeyError: for a missing tensor, by its name in `BaseNetwork`.
    """
    state = {own_name(name): stage1[name] for name in stage1 if name.startswith(READ_OF_STAGE_1)}
    for name, value in stage2.items():
        if name.startswith(READ_OF_STAGE_2) and name not in TABLES:
            state[own_name(name)] = value
    state["encoder.conv_in.weight"] = state["encoder.conv_in.weight"][:, _BAND_ORDER] / 2
    for name in ("decoder.conv_out.weight", "decoder.conv_out.bias"):
        state[name] = state[name][_BAND_ORDER] * 2
    state["vocoder.out.weight"] = state["vocoder.out.weight"][..., None]  # a linear layer there
    return state


def own_name(name: str) -> str:
    """Return the name in `BaseNetwork` of a tensor of a checkpoint.

    Example:
        >>> from melcap.model.base.published import own_name
        >>> own_name("backbone.convnext.0.pwconv1.weight")
        'vocoder.convnext.0.expand.weight'
    """
    for pattern, replacement in _NAMES.items():
        name = re.sub(pattern, replacement, name)
    return name


def _count(state: State, pattern: str) -> int:
    """Return how many different numbers the group of a pattern matches at the start of names."""
    return len({match[1] for name in state if (match := re.match(pattern, name))})
