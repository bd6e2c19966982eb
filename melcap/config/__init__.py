"""The configurations of codecs: frozen dataclasses that check themselves, to and from JSON."""

from melcap.config.base import BaseConfig, BaseTokenizerConfig, BaseVocoderConfig
from melcap.config.lite import CodecConfig, TokenizerConfig, VocoderConfig
from melcap.config.mel import MelSpec
from melcap.config.stored import AnyConfig, from_json

__all__ = [
    "AnyConfig",
    "BaseConfig",
    "BaseTokenizerConfig",
    "BaseVocoderConfig",
    "CodecConfig",
    "MelSpec",
    "TokenizerConfig",
    "VocoderConfig",
    "from_json",
]
