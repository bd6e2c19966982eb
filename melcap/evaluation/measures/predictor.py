"""Measure how predictable a codec's tokens are, in bits per token under a fixed predictor.

A predictor is a `melcap.lm.ContextModel` that was trained with the settings of `RECIPE` on the
tokens of the training set, never on the clips that are measured. Each tokenizer has its own
predictor, trained in the same way (docs/measures.md), so that figures compare tokenizers alone.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from melcap.errors import InputError
from melcap.lm import ContextModel

TITLES = {"bits_per_token": "bits/token", "predicted_kbps": "predicted kbps"}
RECIPE = {"steps": 3000, "minutes": None, "bf16": False}
"""The settings of `examples/token_lm.py train` that a predictor must have been trained with."""
SUFFIX = ".predictor.safetensors"


def find(tokenizer_id: str | None, given: Path | None = None) -> Path | None:
    """Return the file of a tokenizer's predictor, or None where there is none.

    Args:
        tokenizer_id: whose predictor; None for a codec without one.
        given: a file that takes precedence over the package's, if it is for that tokenizer.

    Raises:
        WeightsError: where `given` is no context model.
        InputError: where `given` was trained in another way.
    """
    if given is not None and tokenizer_of(given) == tokenizer_id:
        return given
    own = Path(str(resources.files("melcap") / "weights" / f"{tokenizer_id}{SUFFIX}"))
    return own if own.is_file() else None


def tokenizer_of(file: Path) -> str:
    """Return the identity of the tokenizer that a predictor is for; raises as `find`."""
    model = _load(file)
    settings = model.training_settings
    if {name: settings.get(name) for name in RECIPE} != RECIPE:
        raise InputError(
            f"{file} is no fixed predictor: it was trained with {settings}, and predictors are "
            f"trained with {RECIPE} (docs/measures.md)"
        )
    return model.tokenizer_id


@lru_cache(maxsize=4)
def fingerprint(file: Path | None) -> str | None:
    """Return the beginning of a file's SHA-256, which tells predictors apart."""
    return None if file is None else hashlib.sha256(file.read_bytes()).hexdigest()[:16]


def predict(file: Path, tokens: npt.NDArray[np.integer[Any]], seconds: float) -> dict[str, Any]:
    """Return the measures of `TITLES` for a clip, and "bits_by_row", the mean of each row.

    Args:
        file: the predictor of the tokens' tokenizer.
        tokens: integers [rows, columns].
        seconds: length of the clip.

    Raises:
        InputError: for no tokens, another number of rows, or tokens outside the codebook.
    """
    if not tokens.size:
        raise InputError("a clip without tokens has no bits per token")
    bits = _load(file).bits_of_clip(tokens).double()
    return {
        "bits_per_token": float(bits.mean()),
        "predicted_kbps": float(bits.sum()) / seconds / 1000,
        "bits_by_row": bits.mean(dim=1).tolist(),
    }


@lru_cache(maxsize=4)
def _load(file: Path) -> ContextModel:
    return ContextModel.load(file)
