"""`Codec`, which turns audio into tokens and tokens into audio."""

from __future__ import annotations

import os

import torch

from melcap import hub
from melcap.audio_codec import AudioCodec
from melcap.errors import InputError
from melcap.model.network import Network
from melcap.model.quality import Quality
from melcap.model.stages import inputs_for
from melcap.stored_weights import network_of


class Codec(Network, AudioCodec):  # type: ignore[misc]  # its config is a narrower one
    """A neural audio codec with one codebook; `melcap.load` returns one with trained weights.

    A clip is coded as if endless silence surrounded it. So chunks, padded batches and streams give
    the tokens and the samples of the whole clip, up to rounding. Clips are processed in chunks of
    `chunk_columns` columns, one at a time on a CPU and up to 64 on a GPU. Beyond that, memory grows
    only with the audio and the tokens themselves.

    Args:
        config: every size of the codec.
        model: name and hash of the weights, for information.
        quality: the quality of decoding. "fast" takes a quarter of the configuration's Griffin-Lim
            steps, "best" four times as many. The tokens are the same.

    Raises:
        InputError: for an unknown quality, or any but "default" where the vocoder has no
            Griffin-Lim steps.
    """

    @classmethod
    def from_pretrained(
        cls,
        name: str | os.PathLike[str],
        device: torch.device | str = "cpu",
        *,
        quality: Quality = "default",
        revision: str | None = None,
    ) -> Codec:
        """Return a codec from a folder that `save_pretrained` wrote, or from the Hugging Face Hub.

        Args:
            name: a local folder, or a name such as `user/model`, for which `huggingface_hub` must
                be installed.
            device: where to compute.
            quality: the quality of decoding (see `Codec`).
            revision: branch, tag or commit of a repository on the Hub; None for a local folder.

        Raises:
            WeightsError: if there is no such folder or repository, if it holds no codec or a
                `BaseCodec`, or for a revision of a local folder.
            InputError: for a quality that the codec does not have.
            MelcapError: for a name on the Hub if `huggingface_hub` is not installed.

        Example:
            >>> import tempfile, melcap
            >>> codec = melcap.load()
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     codec.save_pretrained(folder, license="mit")
            ...     again = melcap.Codec.from_pretrained(folder)
            >>> again.tokenizer_id == codec.tokenizer_id
            True
        """
        codec = hub.load_pretrained(
            name, revision, lambda weights: network_of(cls, weights, quality)
        )
        return codec.to(device)

    def save_pretrained(
        self, folder: str | os.PathLike[str], license: str | None = None, card: str = ""
    ) -> None:
        """Write config.json, model.safetensors and README.md, a model card, to a folder.

        Weights are rounded to half precision. An existing README.md is left as it is.

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
        """Return the columns that the decoder needs for a part of a clip; see `AudioCodec`."""
        unit = self.config.column_samples
        earliest, latest = inputs_for(self.decode_stages, first * unit, last * unit)
        return max(0, earliest), min(columns, latest)


def require_own(codec: AudioCodec, what: str) -> Codec:
    """Return a codec of melcap's own architecture, and raise an error for another.

    Args:
        codec: any codec.
        what: the name of what needs this architecture, for the error.

    Raises:
        InputError: for a codec of the published architecture.
    """
    if not isinstance(codec, Codec):
        raise InputError(
            f"{what} cannot work with {codec.model}, a codec of the published MelCap architecture, "
            "whose tokens and samples depend on whole windows of audio"
        )
    return codec
