"""`BaseCodec`, a codec of the published MelCap architecture."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn, TypeVar

import torch
from torch import Tensor

from melcap.audio_codec import AudioCodec
from melcap.errors import InputError
from melcap.model.base.network import BaseNetwork

Self = TypeVar("Self", bound="BaseCodec")


class BaseCodec(BaseNetwork, AudioCodec):  # type: ignore[misc]  # its config is a narrower one
    """A codec of the published MelCap architecture (arXiv 2510.01903), for its checkpoints.

    A clip is coded in windows of `window_columns` columns (10 s), from its beginning on. Norms and
    attention take all of a window into account. So a clip gives the same tokens alone and in a
    batch, but a part of a clip gives others, and there are no streams.

    Args:
        config: every size of the codec.
        model: name and hash of the weights, for information.
    """

    def use_graphs(self, enabled: bool = True) -> NoReturn:
        """Raise an error: CUDA graphs are for codecs of melcap's own architecture.

        Raises:
            InputError: always.
        """
        raise InputError(
            f"CUDA graphs cannot work with {self.model}, a codec of the published MelCap "
            "architecture: they are for melcap's own"
        )

    def _apply(self: Self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # `fn` is tried on an empty tensor first, so that a refusal leaves the codec unchanged.
        dtype = fn(torch.zeros(0, dtype=torch.float32, device=self.device)).dtype
        if dtype != torch.float32:
            raise InputError(
                "a codec of the published architecture computes in float32: it cannot be "
                f"{str(dtype).removeprefix('torch.')}"
            )
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self
