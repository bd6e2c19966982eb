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
"""Their Haar transform has the bands LH and HL the other way round, and halves all of them."""
_VOCODER = {
    r"^backbone\.": "",
    r"^head\.": "",
    r"\bgamma$": "scale",
    r"\bdwconv\b": "depthwise",
    r"\bpwconv1\b": "expand",
    r"\bpwconv2\b": "contract",
}


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
    """
    state = {"codebook.vectors": stage1[CODEBOOK]}
    for name, value in stage1.items():
        if name.startswith(("encoder.", "quant_conv.")):
            state[f"encoder.{name.removeprefix('encoder.')}"] = value
    for name, value in stage2.items():
        if name.startswith(PROJECTION):
            state[f"decoder.post_quant_conv.{name.removeprefix(PROJECTION)}"] = value
        elif name.startswith(MEL_DECODER):
            state[f"decoder.{name.removeprefix(MEL_DECODER)}"] = value
        elif name.startswith(("backbone.", "head.out.")):
            state[f"vocoder.{_vocoder_name(name)}"] = value
    state["encoder.conv_in.weight"] = state["encoder.conv_in.weight"][:, _BAND_ORDER] / 2
    for name in ("decoder.conv_out.weight", "decoder.conv_out.bias"):
        state[name] = state[name][_BAND_ORDER] * 2
    state["vocoder.out.weight"] = state["vocoder.out.weight"][..., None]  # a linear layer there
    return state


def _vocoder_name(name: str) -> str:
    for pattern, replacement in _VOCODER.items():
        name = re.sub(pattern, replacement, name)
    return name


def _count(state: State, pattern: str) -> int:
    """Return how many different numbers the group of a pattern matches at the start of names."""
    return len({match[1] for name in state if (match := re.match(pattern, name))})
