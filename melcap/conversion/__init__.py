"""The conversion of published MelCap checkpoints to a weights file: what `melcap convert` does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from melcap.base_codec import BaseCodec
from melcap.conversion.activation import chosen, clip_error, errors_of
from melcap.conversion.card import card
from melcap.conversion.checkpoints import read_stage1, read_stage2
from melcap.conversion.checks import checked
from melcap.conversion.training_settings import check_settings
from melcap.errors import InputError, OutputExistsError
from melcap.io.files import write_text
from melcap.io.weights_file import model_name, sha256_of
from melcap.pretrained import save

__all__ = ["STEPS", "Converted", "convert"]

STEPS = ("reading stage 1", "reading stage 2", "checking", "trying the activation", "writing")
"""The steps that `convert` reports."""


@dataclass(frozen=True)
class Converted:
    """The result of a conversion.

    Attributes:
        target: the weights file; its model card is beside it, with the suffix .md.
        sha256: the SHA-256 of the weights file.
        model: the name of the model, with the beginning of that hash.
        activation: the activation, "tanh" or "silu".
        errors: the mean absolute error of ln-mel on a clip, by activation, as far as it was
            measured.
    """

    target: Path
    sha256: str
    model: str
    activation: str
    errors: dict[str, float]


def convert(
    stage1: Path,
    stage2: Path,
    target: Path,
    *,
    config: Path | None = None,
    activation: str | None = None,
    name: str = "melcap-base",
    force: bool = False,
    progress: Callable[[str], None] = lambda _: None,
) -> Converted:
    """Write the weights of two published checkpoints as a weights file, with a model card.

    Args:
        stage1: the tokenizer, such as `vae_00620000`.
        stage2: the Lightning checkpoint of mel decoder and vocoder, such as `last.ckpt`.
        target: the weights file, .safetensors.
        config: config.yaml of the training of stage 2, to compare.
        activation: "tanh" or "silu"; None takes the one with which a clip comes out clearly better.
        name: of the model.
        force: replace an existing target and card, and accept a stage 1 of another name than in
            `config`.
        progress: is called with the name of each step of `STEPS` as it begins.

    Raises:
        WeightsError: for files that cannot be converted, with the reason.
        OutputExistsError: for an existing target or card without `force`.
        InputError: for a target of another suffix.
    """
    if target.suffix != ".safetensors":
        raise InputError(f"{target}: the name of a weights file must end in .safetensors")
    described = target.with_suffix(".md")
    for path in (target, described):
        if path.exists() and not force:
            raise OutputExistsError(f"{path} exists: use --force to replace it")
    progress(STEPS[0])
    tokenizer = read_stage1(stage1)
    progress(STEPS[1])
    decoder = read_stage2(stage2)
    progress(STEPS[2])
    paths = stage1, stage2
    found, state = checked(tokenizer, decoder, paths, activation or "tanh", name)
    if config is not None:
        check_settings(config, found, stage1, force)

    def codec_with(activation: str) -> BaseCodec:
        tokenizer = replace(found.tokenizer, activation=activation)
        codec = BaseCodec(replace(found, tokenizer=tokenizer))
        codec.load_state_dict({**state, "silence": codec.silence})
        return codec.eval().requires_grad_(False)

    progress(STEPS[3])
    errors = errors_of(codec_with) if activation is None else {}
    kind = chosen(errors) if activation is None else activation
    codec = codec_with(kind)
    if not errors:
        errors = {kind: clip_error(codec)}
    progress(STEPS[4])
    codec.learn_silence()
    digest = save(codec, target)
    sources = [(path.name, sha256_of(path)) for path in paths]
    write_text(described, card(codec, target, digest, errors, sources))
    return Converted(target, digest, model_name(name, digest), kind, errors)
