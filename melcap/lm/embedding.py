"""The initial embedding of a language model, made from the codebook."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from melcap.audio_codec import AudioCodec
from melcap.errors import InputError
from melcap.lm.vocabulary import Vocabulary, whole_number


def initial_embedding(
    codec: AudioCodec, vocabulary: Vocabulary, width: int, std: float = 0.02, seed: int = 0
) -> Tensor:
    """Return an embedding matrix in which similar tokens start near each other.

    One random orthonormal map takes the codebook entries, less their mean, to the width of the
    model. Distances between tokens keep their ratios. For a width below the dimension of the
    entries, the map is a random orthogonal projection, which keeps the ratios only roughly. All
    other ids get normal random numbers.

    The embeddings of the audio ids depend only on the codebook, `width`, `std` and `seed`, so they
    are the same for every vocabulary. The random numbers come from torch's CPU generator, whatever
    the codec's device. As far as torch draws the same numbers on another machine, the matrix is the
    same there except for rounding.

    Args:
        codec: the codec whose tokens the model reads.
        vocabulary: the layout of the model's ids.
        width: numbers of one embedding (the hidden size of most models).
        std: standard deviation of the numbers of all audio ids, and of the random numbers.
        seed: of the random map and of the random numbers.

    Returns:
        float32 [vocabulary.size, width], on the CPU.

    Raises:
        InputError: where codec and vocabulary do not fit together, or for a width below 1.

    Example:
        >>> import melcap, torch
        >>> from melcap.lm import Vocabulary, initial_embedding
        >>> codec = melcap.load()
        >>> weight = initial_embedding(codec, Vocabulary.of(codec), width=768)
        >>> torch.nn.Embedding.from_pretrained(weight, freeze=False)
        Embedding(8195, 768)
    """
    if codec.vocab_size != vocabulary.codebook_size:
        raise InputError(
            f"the vocabulary has {vocabulary.codebook_size} tokens and the codec "
            f"{codec.vocab_size}: make it with Vocabulary.of(codec)"
        )
    width = whole_number(width, "width", 1)
    generator = torch.Generator("cpu").manual_seed(seed)
    vectors = codec.codebook.vectors.detach().to("cpu", torch.float64)
    # The mean is common to all tokens. It would take up most of the standard deviation.
    centred = vectors - vectors.mean(dim=0)
    random_map = torch.empty(vectors.shape[1], width, dtype=torch.float64, device="cpu")
    audio = centred @ nn.init.orthogonal_(random_map, generator=generator)
    size = (vocabulary.size, width)
    weight = torch.randn(size, generator=generator, dtype=torch.float32, device="cpu") * std
    weight[vocabulary.audio] = (audio * (std / audio.square().mean().sqrt())).float()
    return weight
