"""Codecs to compare on the same clips, each with two methods: encode and decode.

The bytes that are counted are those that must be kept to get the audio back: for Opus the packets
without Ogg pages around them, for Codec 2 and Speex the bits of the frames, for melcap the whole
`.melcap` file.
"""

CODECS = (
    "melcap",
    "melcap-fast",
    "melcap-best",
    "opus-6",
    "opus-8",
    "opus-12",
    "opus-16",
    "opus-24",
    "codec2-3200",
    "speex",
    "griffin-lim",
    "original",
)
"""The names that `melcap evaluate --help` lists. `registry.peer` takes other rates as well."""
