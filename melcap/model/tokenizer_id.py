"""The identity of a tokenizer: two codecs that give the same tokens have the same id.

Tokens mean what the front end, the encoder and the codebook say. Mel decoder and vocoder have no
part in the id, so a better decoder reads the tokens of the weights before it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping

import torch
from torch import Tensor

from melcap.config import CodecConfig

DIGITS = 16
"""Hexadecimal digits of an id: 64 bits of a SHA-256."""
_DECODER_ONLY = {"decoder_blocks"}


def tokenizer_id_of(config: CodecConfig, encoder: Mapping[str, Tensor], vectors: Tensor) -> str:
    """Return the id of a tokenizer, 16 hexadecimal digits.

    The id is the beginning of a SHA-256 of the front end's and the encoder's configuration, of the
    encoder's weights and of the codebook, as float32 numbers. The name of the model is left out.

    Args:
        config: configuration of the codec.
        encoder: the encoder's weights by name, in any order; buffers without a place in a weights
            file left out.
        vectors: the codebook, [codebook_size, codebook_dim].

    Example:
        >>> import melcap
        >>> codec = melcap.load()
        >>> codec.tokenizer_id == melcap.load(quality="fast").tokenizer_id
        True
    """
    digest = hashlib.sha256(_described(config).encode())
    for name, value in [*sorted(encoder.items()), ("codebook", vectors)]:
        digest.update(f"{name} {list(value.shape)}\n".encode())
        digest.update(value.detach().to("cpu", torch.float32).contiguous().numpy().tobytes())
    return digest.hexdigest()[:DIGITS]


def _described(config: CodecConfig) -> str:
    """Return the part of a configuration that decides on tokens, as JSON in a fixed order."""
    parts = {}
    for part in (config.mel, config.tokenizer):
        for field in dataclasses.fields(part):
            if field.name not in _DECODER_ONLY:
                value = getattr(part, field.name)
                # A whole number in the place of a float must not make another tokenizer.
                parts[field.name] = float(value) if isinstance(field.default, float) else value
    return json.dumps(parts, sort_keys=True)
