"""`BaseCodec`, a codec of the published MelCap architecture."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NoReturn, TypeVar

import torch
from torch import Tensor

from melcap import hub
from melcap.audio_codec import AudioCodec
from melcap.errors import InputError
from melcap.model.base.network import BaseNetwork
from melcap.model.base.windows import windows_of
from melcap.stored_weights import base_network_of

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

    @classmethod
    def from_pretrained(
        cls,
        name: str | os.PathLike[str],
        device: torch.device | str = "cpu",
        *,
        revision: str | None = None,
    ) -> BaseCodec:
        """Return a codec from a folder that `save_pretrained` wrote, or from the Hugging Face Hub.

        Args:
            name: a local folder, or a name such as `user/model`, for which `huggingface_hub` must
                be installed.
            device: where to compute.
            revision: branch, tag or commit of a repository on the Hub; None for a local folder.

        Raises:
            WeightsError: if there is no such folder or repository, if it holds no codec or a
                `Codec`, or for a revision of a local folder.
            MelcapError: for a name on the Hub if `huggingface_hub` is not installed.
        """
        codec = hub.load_pretrained(name, revision, lambda weights: base_network_of(cls, weights))
        return codec.to(device)

    def save_pretrained(
        self, folder: str | os.PathLike[str], license: str | None = None, card: str = ""
    ) -> None:
        """Write config.json, model.safetensors and README.md, a model card, to a folder.

        Weights are written as they are, in float32. An existing README.md is left as it is.

        Args:
            folder: it is created if it does not exist.
            license: the name of the weights' licence, as the Hub spells it, such as "mit"; None
                for a card that names none.
            card: Markdown for the end of the model card.

        Raises:
            WeightsError: for weights that are not finite, or a folder that cannot be written.
        """
        hub.save_pretrained(self, folder, license, card)

    def needed_columns(self, first: int, last: int, columns: int) -> tuple[int, int]:
        """Return the columns that the decoder needs for a part of a clip; see `AudioCodec`.

        They are whole windows, so they are cut into the same windows as in the clip.
        """
        tokenizer = self.config.tokenizer
        context = -(-self.vocoder.context // tokenizer.patch_frames)
        needed = [
            (begin, end)
            for begin, end in windows_of(columns, tokenizer.window_columns)
            if begin < last + context and end > first - context
        ]
        return needed[0][0], needed[-1][1]

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
