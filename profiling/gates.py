"""What must hold before melcap is timed: every backend gives what the reference gives."""

from __future__ import annotations

import torch
from contenders import Contender
from torch import Tensor

import melcap
from melcap.codes import Codes

FLIPS = 1e-3  # of the tokens: those between two codes as near as rounding
ERROR = 2.0**-15  # of full scale, root mean square of most samples: the last bit of 16
MOST = 0.95  # of the samples: those that agree best
LARGEST = 2.0**-5  # of any sample


def agreement(contender: Contender, wave: Tensor) -> str | None:
    """Why a contender must not be timed, or None.

    melcap's: tokens and samples are compared with the reference's, which works in other chunks than
    usual. Samples by the root mean square of the error where it is least: in a few places, where
    bins have hardly a phase, sixteen Griffin-Lim steps magnify rounding, and float32 does not agree
    with float64 either. A peer has random weights: its waves must be finite and about as long as
    what went in.
    """
    wave = wave[None].to(contender.device)
    made = contender.encode(wave)
    heard = contender.decode(made)
    if not contender.name.startswith("melcap"):
        length = heard.numel()
        if not torch.isfinite(heard).all() or abs(length - wave.numel()) > 4096:
            return f"gave {length} samples for {wave.numel()}, or some that are not finite"
        return None
    codec = melcap.load()
    codec.chunk_columns = 37
    with melcap.use_backend("torch"):
        expected = codec.encode(wave.cpu(), contender.sample_rate)
        tokens = torch.as_tensor(made.tokens if isinstance(made, Codes) else made).cpu()
        flips = int((tokens != expected.tokens).sum())
        own = Codes(
            tokens, expected.columns, expected.lengths, expected.sample_rate, codec.tokenizer_id
        )
        reference = codec.decode(own)
    samples = heard.cpu().flatten()[: reference.numel()]
    errors = (samples - reference.flatten()).abs().sort().values
    error = float(errors[: int(MOST * len(errors))].square().mean().sqrt())
    if flips > FLIPS * tokens.numel() or error > ERROR or errors[-1] > LARGEST:
        return (
            f"{flips} of {tokens.numel()} tokens differ, {MOST:.0%} of the samples by {error:.1e} "
            f"(rms), one by {float(errors[-1]):.1e}"
        )
    return None
