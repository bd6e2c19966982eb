"""Checkpoints of training runs as codecs of the scorecard."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from melcap.codec import Codec
from melcap.evaluation.peers import registry
from melcap.evaluation.peers.base import Peer
from melcap.evaluation.peers.own import Melcap
from melcap.evaluation.peers.partial import OnlyVocoder, WithoutVocoder
from melcap.io.weights_file import HASH_BYTES
from melcap.training.checkpoint import INDEX, Checkpoint


def peer(name: str) -> Peer:
    """Return the codec that a name stands for, which may be a checkpoint folder, RUN/stage2 say.

    It takes all names of `melcap.evaluation.peers.registry.peer`, and raises the same errors.

    Raises:
        InputError: for a folder whose checkpoint cannot be read.
    """
    return of_checkpoint(name) if (Path(name) / INDEX).is_file() else registry.peer(name)


@cache
def of_checkpoint(name: str) -> Peer:
    """Return the codec of a checkpoint folder of `melcap train`.

    A checkpoint of stage 2 or of the joint stage is the whole codec. One of stage 1 has no vocoder,
    and one of a vocoder on true mels has nothing else.

    Raises:
        InputError: for a folder without a checkpoint.
    """
    found = Checkpoint(Path(name))
    index = (Path(name) / INDEX).read_bytes()  # it holds the hashes of all files
    digest = hashlib.sha256(index).hexdigest()[: 2 * HASH_BYTES]
    codec = Codec(found.codec, f"{found.codec.name}-{digest}")
    for part, state in found.exported().items():
        if part == "ema_codebook":
            codec.codebook.vectors.copy_(state["codebook.vectors"])
        elif part != "discriminators":
            codec.get_submodule(part).load_state_dict(state)
    codec.eval().requires_grad_(False)
    if found.recipe == "vocoder":
        return OnlyVocoder(name, codec)
    codec.learn_silence()
    return WithoutVocoder(name, codec) if found.recipe == "stage1" else Melcap(name, codec)
