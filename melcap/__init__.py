"""melcap: a runtime for single-codebook neural audio codecs.

codec = melcap.load()
codes = codec.encode(wave, sample_rate)
wave = codec.decode(codes)
"""

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
