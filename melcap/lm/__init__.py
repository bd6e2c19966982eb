"""Tools for language models that read and write a codec's tokens.

`Vocabulary` gives tokens their ids, `pack` fills blocks for training, `initial_embedding` starts a
model's embedding from the codebook, `apply_delay_pattern` serves models that write a column a step,
and `SilenceStop` ends a generation that has gone silent. `ContextModel` measures how predictable
tokens are. Nothing here needs `transformers`.
"""

from melcap.lm.context_model import ContextModel, ContextModelConfig
from melcap.lm.delay import apply_delay_pattern, revert_delay_pattern
from melcap.lm.embedding import initial_embedding
from melcap.lm.packing import Block, pack
from melcap.lm.stopping import SilenceStop
from melcap.lm.vocabulary import Vocabulary

__all__ = [
    "Block",
    "ContextModel",
    "ContextModelConfig",
    "SilenceStop",
    "Vocabulary",
    "apply_delay_pattern",
    "initial_embedding",
    "pack",
    "revert_delay_pattern",
]
