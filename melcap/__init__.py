"""melcap: a runtime for single-codebook neural audio codecs.

codec = melcap.load()
codes = codec.encode(wave, sample_rate)
wave = codec.decode(codes)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from melcap.codec import Codec
    from melcap.codes import Codes
    from melcap.ops import get_backend, set_backend, use_backend
    from melcap.pretrained import load
    from melcap.streaming import StreamDecoder, StreamEncoder
    from melcap.transcode import decode_file, encode_file

__version__ = "0.1.0"

__all__ = [
    "Codec",
    "Codes",
    "StreamDecoder",
    "StreamEncoder",
    "decode_file",
    "encode_file",
    "get_backend",
    "load",
    "set_backend",
    "use_backend",
]

_HOMES = {
    "Codec": "codec",
    "Codes": "codes",
    "StreamDecoder": "streaming",
    "StreamEncoder": "streaming",
    "decode_file": "transcode",
    "encode_file": "transcode",
    "get_backend": "ops",
    "load": "pretrained",
    "set_backend": "ops",
    "use_backend": "ops",
}


def __getattr__(name: str) -> Any:
    """Imported when asked for: `melcap --help`, and processes that read audio, need no torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'melcap' has no attribute {name!r}")
    value = getattr(import_module(f"melcap.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
