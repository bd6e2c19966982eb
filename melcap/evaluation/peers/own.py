"""melcap as one of the codecs that are compared."""

from __future__ import annotations

from melcap.audio_codec import AudioCodec
from melcap.codec import Codec
from melcap.codes import Codes
from melcap.evaluation.peers.base import Audio, Coded, Peer
from melcap.io import container


class Melcap(Peer):
    """melcap with the weights of a codec, through the bytes of a `.melcap` file."""

    def __init__(self, name: str, codec: AudioCodec) -> None:
        self.name = name
        self.codec = codec
        self.config = codec.config
        self.identity = codec.model
        if isinstance(codec, Codec) and codec.quality != "default":
            self.identity += f" {codec.quality}"
        self.codebook_size = codec.vocab_size
        self.codebook = codec.codebook.vectors.float().numpy()
        self.column_seconds = 1 / codec.frame_rate
        self.tokenizer_id = codec.tokenizer_id

    def encode(self, wave: Audio, sample_rate: int) -> Coded:
        """Encode [samples] to the bytes of a file."""
        codes = self.codec.encode(wave, sample_rate)
        header = container.Header(
            model=codes.model,
            tokenizer_id=codes.tokenizer_id,
            sample_rate=sample_rate,
            channels=1,
            samples=len(wave),
            rows=self.codec.rows,
            columns=codes.columns[0],
            bits=self.config.tokenizer.bits,
        )
        tokens = codes.numpy()
        payload = container.pack(header, tokens[None])
        return Coded(payload, len(payload), len(wave), sample_rate, tokens)

    def decode(self, coded: Coded) -> Audio:
        """Decode the bytes of a file to [samples]."""
        wave: Audio = self.codec.decode(self.codes(coded))[0].numpy()
        return wave

    def codes(self, coded: Coded) -> Codes:
        """Return the tokens in the file, those of a clip with one channel."""
        return Codes.from_bytes(coded.payload)
