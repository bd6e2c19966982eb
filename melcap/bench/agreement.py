"""Check that a codec gives what the reference gives, before it is timed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from melcap.audio_codec import AudioCodec
from melcap.codec import Codec
from melcap.codes import Codes
from melcap.ops import use_backend

DIFFERING_TOKENS = 1e-3
"""Share of the tokens that may differ, as rounding decides where two entries are equally near."""
RMS_ERROR = 2.0**-15
"""Root mean square of the error of most samples, with full scale 1: the last of 16 bits."""
RMS_SHARE = 0.95
"""Share of the samples that `RMS_ERROR` is for: those that agree best."""
LARGEST_ERROR = 2.0**-5
"""Largest error of any sample."""
CHUNK_COLUMNS = 37
"""Columns of the reference's chunks, which are not those of any codec that is timed."""


def disagreement(
    made: Codes | Tensor, decoded: Tensor, wave: Tensor, codec: AudioCodec
) -> str | None:
    """Compare tokens and samples with those of the reference, which works in other chunks.

    Only melcap's own architecture has chunks. A `BaseCodec` works in the same windows as its
    reference, because its tokens depend on them.

    A few samples may differ by more than the others. Where bins have hardly a phase, Griffin-Lim
    steps amplify rounding noise, and float32 does not agree with float64 either.

    Args:
        made: the codes of a wave, or its tokens [1, rows, columns].
        decoded: samples that were decoded from them, on any device.
        wave: the wave [1, samples], at the codec's rate.
        codec: the reference, on a CPU.

    Returns:
        What differs, or None where the two agree.
    """
    with use_backend("torch"), _other_chunks(codec):
        expected = codec.encode(wave.cpu(), codec.sample_rate)
        tokens = torch.as_tensor(made.tokens if isinstance(made, Codes) else made).cpu()
        differing = int((tokens != expected.tokens).sum())
        own = Codes(
            tokens, expected.columns, expected.lengths, codec.sample_rate, codec.tokenizer_id
        )
        reference = codec.decode(own)
    samples = decoded.cpu().flatten()[: reference.numel()]
    errors = (samples - reference.flatten()).abs().sort().values
    error = float(errors[: int(RMS_SHARE * len(errors))].square().mean().sqrt())
    # A comparison with NaN is false, so NaN fails.
    if (
        differing <= DIFFERING_TOKENS * tokens.numel()
        and error <= RMS_ERROR
        and errors[-1] <= LARGEST_ERROR
    ):
        return None
    return (
        f"{differing} of {tokens.numel()} tokens differ, {RMS_SHARE:.0%} of the samples by "
        f"{error:.1e} (rms), one by {float(errors[-1]):.1e}"
    )


@contextmanager
def _other_chunks(codec: AudioCodec) -> Iterator[None]:
    """Let a codec work in chunks of `CHUNK_COLUMNS` in the block, if it has chunks."""
    if not isinstance(codec, Codec):
        yield
        return
    before = codec.chunk_columns
    codec.chunk_columns = CHUNK_COLUMNS
    try:
        yield
    finally:
        codec.chunk_columns = before
