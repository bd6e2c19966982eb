"""The model card of converted weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from melcap.base_codec import BaseCodec
from melcap.hub import front_matter

SOURCE = "https://huggingface.co/jingyi49/MelCap"
CODE = "https://github.com/jingyi49/Anonymous"
PAPER = "https://arxiv.org/abs/2510.01903"


def card(
    codec: BaseCodec,
    target: Path,
    digest: str,
    errors: Mapping[str, float],
    sources: Sequence[tuple[str, str]],
) -> str:
    """Return a model card in Markdown: where the weights are from, and how they were converted.

    Args:
        codec: the converted codec.
        target: its weights file.
        digest: the SHA-256 of that file.
        errors: the mean absolute error of ln-mel on a clip, by activation.
        sources: the name and the SHA-256 of each file that was converted.
    """
    config = codec.config
    files = "\n".join(f"- `{name}`: `{value}`" for name, value in sources)
    tried = ", ".join(f"{name} {error:.2f}" for name, error in errors.items())
    parts = [
        front_matter(),
        f"# {target.stem}: model card",
        f"A codec of the published MelCap architecture ([paper]({PAPER})), converted by melcap. "
        f"{config.tokens_per_second:.1f} tokens a second, {config.bits_per_second / 1000:.2f} kbps "
        f"for each channel at {config.mel.sample_rate} Hz. Tokenizer `{codec.tokenizer_id}`. "
        f"SHA-256 of the file: `{digest}`.",
        "## Source",
        f"The authors publish such weights at <{SOURCE}>, and their code at <{CODE}> under the MIT "
        "licence. The licence of the weights is the one that is stated where these files are from. "
        "Files that were converted, with their SHA-256:",
        files,
        "## Conversion",
        f"Activation {config.tokenizer.activation}; mean absolute error of ln-mel on a clip of two "
        f"seconds: {tried}. The weights are stored as they were, in float32. Two changes fold into "
        "the first and the last convolution: the order of the bands of the Haar transform, and its "
        "scale.",
    ]
    return "\n\n".join(parts) + "\n"
