"""The published checkpoints with weights from a formula, and what the published code made of them.

`tests/data/base` has a file of arrays for each case: `wave` [samples], `mel` [bins, frames] (ln),
`latents` [dim, rows, columns], `tokens` and `margin` [rows, columns], `recon` [bins, frames] (ln,
clamped) and `audio` [samples]. The published code computed them on a CPU in float32. `layout.json`
has the name and shape of every tensor of the two checkpoints.
"""

from __future__ import annotations

import json
import math
import zlib
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from melcap.base_codec import BaseCodec
from melcap.model.base.published import config_of, state_of

DATA = Path(__file__).parents[2] / "data" / "base"
_TABLES = ("window", "mel_scale.fb")
_UNUSED = ("multiperioddisc", "multiresddisc", "melspec_loss")


class Case(NamedTuple):
    """A file of arrays, the layout of its weights, and the activation that was used."""

    file: str
    layout: str
    activation: str


TINY = (
    Case("tiny-tanh-24320", "tiny-tanh", "tanh"),
    Case("tiny-attention-24320", "tiny-attn", "tanh"),
    Case("tiny-silu-49000", "tiny-tanh", "silu"),
)
FULL = Case("full-tanh-24320", "full-tanh", "tanh")


def arrays(case: Case) -> dict[str, npt.NDArray[np.float32]]:
    """Return the arrays of a case."""
    with np.load(DATA / f"{case.file}.npz") as stored:
        return {name: stored[name] for name in stored.files}


@lru_cache(maxsize=1)
def stages(layout: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the state dicts of both stages, without tables that are computed."""
    stage1, stage2 = shapes(layout)
    return (
        {name: _weight("stage1.", name, shape) for name, shape in stage1.items()},
        {name: _weight("stage2.", name, shape) for name, shape in stage2.items()},
    )


def shapes(layout: str) -> tuple[dict[str, list[int]], dict[str, list[int]]]:
    """Return the shapes of the tensors of both stages, without tables that are computed."""
    files = json.loads((DATA / "layout.json").read_text())[layout]
    stage1 = next(value for name, value in files.items() if name.startswith("cp_"))
    used = {
        name: shape
        for name, shape in files["last.ckpt"].items()
        if not name.endswith(_TABLES) and not name.startswith(_UNUSED)
    }
    return stage1, used


def codec_of(case: Case) -> BaseCodec:
    """Return a codec with the weights of a case."""
    stage1, stage2 = stages(case.layout)
    codec = BaseCodec(config_of(stage1, stage2, case.activation, case.file))
    codec.load_state_dict({**state_of(stage1, stage2), "silence": codec.silence})
    codec.learn_silence()
    return codec.eval().requires_grad_(False)


def with_windows(codec: BaseCodec, columns: int) -> BaseCodec:
    """Return a codec with the same weights and windows of so many columns."""
    tokenizer = replace(codec.config.tokenizer, window_columns=columns)
    other = BaseCodec(replace(codec.config, tokenizer=tokenizer))
    other.load_state_dict(codec.state_dict())
    return other.eval().requires_grad_(False)


def _weight(prefix: str, name: str, shape: list[int]) -> Tensor:
    random = np.random.RandomState(zlib.crc32(f"0/{prefix}{name}".encode()))
    fan_in = math.prod(shape[1:])
    mean: float | npt.NDArray[np.float64] = 0
    if name.endswith("quantizer.embedding.weight"):
        scale = 1.0
    elif name.endswith("conv_out.weight") and "decoder" in name:
        scale = 0.4 / math.sqrt(fan_in)
    elif name.endswith(("decoder.conv_out.bias", "mel_decoder.1.conv_out.bias")):
        scale, mean = 0.1, np.array([-1.0, 0, 0, 0])
    elif name.endswith("gamma"):
        scale, mean = 0.05, 0.25
    elif name.endswith("quant_conv.weight") and "post" not in name:
        scale = 4 / math.sqrt(fan_in)
    elif len(shape) == 1:
        scale, mean = (0.1, 1) if name.endswith("weight") else (0.02, 0)
    else:
        scale = 1 / math.sqrt(fan_in)
    drawn = random.standard_normal(shape) * scale + mean
    return torch.from_numpy(drawn.astype(np.float32))
