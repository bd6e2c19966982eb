"""The identity of a tokenizer: codecs that give the same tokens have the same id.

The front end, the encoder and the codebook decide what tokens mean. The mel decoder and the vocoder
are not part of the id, so a newer decoder can decode older tokens.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from melcap.config import BaseConfig, CodecConfig
from melcap.model.quantizer import Codebook
from melcap.model.weight_state import WeightState

DIGITS = 16
"""Hexadecimal digits of an id: 64 bits of a SHA-256."""
_DECODER_ONLY = {"decoder_blocks"}
"""Fields of the tokenizer's configuration that are not part of the id."""


def tokenizer_id_of(
    config: CodecConfig | BaseConfig, encoder: Mapping[str, Tensor], vectors: Tensor
) -> str:
    """Return the id of a tokenizer, 16 hexadecimal digits.

    The id is the beginning of a SHA-256 over the configuration of the front end and the encoder,
    the weights of the encoder, and the codebook, both as float32. The name of the model is not part
    of it.

    Args:
        config: configuration of the codec.
        encoder: the `state_dict` of the encoder, in any order.
        vectors: the codebook, [codebook_size, codebook_dim].

    Example:
        >>> import melcap
        >>> codec = melcap.load()
        >>> codec.tokenizer_id == melcap.load(quality="fast").tokenizer_id
        True
    """
    digest = hashlib.sha256(_json_of(config).encode())
    for name, value in [*sorted(encoder.items()), ("codebook", vectors)]:
        digest.update(f"{name} {list(value.shape)}\n".encode())
        digest.update(value.detach().to("cpu", torch.float32).contiguous().numpy().tobytes())
    return digest.hexdigest()[:DIGITS]


class CachedTokenizerId:
    """The id of a tokenizer, computed again only when one of its weights has changed."""

    def __init__(self) -> None:
        self._state: WeightState | None = None
        self._id = ""

    def __reduce__(self) -> tuple[object, ...]:
        return CachedTokenizerId, ()  # a copy has weights of its own

    def of(self, config: CodecConfig | BaseConfig, encoder: nn.Module, codebook: Codebook) -> str:
        """Return the id of the tokenizer with this configuration, encoder and codebook."""
        state = self._state
        if state is None or not state.complete or not state.holds(encoder, codebook):
            state = WeightState(encoder, codebook)  # before they are read
            self._id = tokenizer_id_of(config, encoder.state_dict(), codebook.vectors)
            self._state = state
        return self._id


def _json_of(config: CodecConfig | BaseConfig) -> str:
    """Return the part of a configuration that tokens depend on, as JSON in a fixed order."""
    parts = {}
    for part in (config.mel, config.tokenizer):
        for field in dataclasses.fields(part):
            if field.name not in _DECODER_ONLY:
                value = getattr(part, field.name)
                # A whole number in place of a float must not make another tokenizer.
                parts[field.name] = float(value) if isinstance(field.default, float) else value
    return json.dumps(parts, sort_keys=True)
