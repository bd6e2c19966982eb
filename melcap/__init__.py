"""A runtime for single-codebook neural audio codecs.

Example:
    >>> import torch, melcap
    >>> codec = melcap.load()  # melcap.load(device="cuda") on a GPU
    >>> wave, sample_rate = torch.zeros(2, 48000), 48000  # two channels of one second
    >>> codes = codec.encode(wave, sample_rate)
    >>> codes.tokens.shape  # channels, rows, columns
    torch.Size([2, 12, 22])
    >>> codec.decode(codes).shape  # as many samples as went in
    torch.Size([2, 48000])

`melcap.audio`, which is imported by its name, reads and writes audio files.
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

_MODULES = {
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
"""The module that defines each public name."""


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used.

    So `melcap --help`, and processes that only read audio, do not import torch.
    """
    if name not in _MODULES:
        raise AttributeError(f"module 'melcap' has no attribute {name!r}")
    value = getattr(import_module(f"melcap.{_MODULES[name]}"), name)
    globals()[name] = value
    return value
