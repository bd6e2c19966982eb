"""The configurations of codecs: frozen dataclasses that check themselves, to and from JSON."""

from melcap.config.base import BaseConfig, BaseTokenizerConfig, BaseVocoderConfig
from melcap.config.lite import CodecConfig, TokenizerConfig, VocoderConfig
from melcap.config.mel import MelSpec

__all__ = [
    "BaseConfig",
    "BaseTokenizerConfig",
    "BaseVocoderConfig",
    "CodecConfig",
    "MelSpec",
    "TokenizerConfig",
    "VocoderConfig",
]
