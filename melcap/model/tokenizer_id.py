"""The identity of a tokenizer: codecs that give the same tokens have the same id.

The front end, the encoder and the codebook decide what tokens mean. The mel decoder and the vocoder
are not part of the id, so a newer decoder can decode older tokens.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import operator
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from melcap.config import BaseConfig, CodecConfig

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
    """The id of a tokenizer, computed again only when one of its tensors has changed."""

    def __init__(self) -> None:
        # The tensors are kept alive, so that no new tensor can get the address of one of them.
        self._tensors: list[Tensor] = []
        self._state: list[tuple[int, int]] | None = None
        self._id = ""

    def of(self, config: CodecConfig | BaseConfig, encoder: nn.Module, vectors: Tensor) -> str:
        """Return the id of the tokenizer with these modules.

        Args:
            config: configuration of the codec.
            encoder: the encoder.
            vectors: the codebook, [codebook_size, codebook_dim].
        """
        tensors = [*_tensors(encoder), vectors]
        try:
            state = [(each._version, each.data_ptr()) for each in tensors]
        except RuntimeError:  # tensors made in inference mode do not count their changes
            state = None
        same = len(tensors) == len(self._tensors) and all(map(operator.is_, tensors, self._tensors))
        if not same or state is None or state != self._state:
            self._id = tokenizer_id_of(config, encoder.state_dict(), vectors)
            self._tensors, self._state = tensors, state
        return self._id


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    """Yield the parameters and buffers of a module, far faster than its `state_dict` does."""
    modules = [module]
    while modules:
        module = modules.pop()
        modules.extend(each for each in module._modules.values() if each is not None)
        yield from (each for each in module._parameters.values() if each is not None)
        yield from (each for each in module._buffers.values() if each is not None)


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
