"""Tools for language models that read and write a codec's tokens.

- `Vocabulary` maps tokens to ids.
- `pack` fills blocks of ids for training.
- `initial_embedding` makes the first embedding of a model from the codebook.
- `apply_delay_pattern` is for models that write one token of every row at each step.
- `SilenceStop` ends a generation after some seconds of silence.
- `ContextModel` measures how predictable tokens are.

None of them needs `transformers`.
"""

from melcap.lm.context_model import ContextModel
from melcap.lm.context_model_config import ContextModelConfig
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
