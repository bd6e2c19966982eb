"""Tokenizers have the same id if and only if they give the same tokens."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import melcap
from melcap.codec import Codec
from melcap.config import CodecConfig
from melcap.errors import ModelMismatchError, WeightsError
from melcap.model.tokenizer_id import tokenizer_id_of
from melcap.pretrained import save, save_decoder
from tests.helpers import SMALL, draw_weights, noise


def tensors_of(module: Any) -> list[tuple[str, Tensor]]:
    return [*module.named_parameters(), *module.named_buffers()]


def changed(codec: Codec, part: str, name: str) -> Codec:
    """Return a copy of a codec with one number of one tensor changed."""
    other = copy.deepcopy(codec)
    tensor = dict(tensors_of(other.get_submodule(part)))[name]
    with torch.no_grad():
        tensor.view(-1)[-1] += 0.5
    return other


def every_tensor(*parts: str) -> list[tuple[str, str]]:
    codec = Codec(SMALL)
    return [(part, name) for part in parts for name, _ in tensors_of(codec.get_submodule(part))]


@pytest.mark.parametrize(("part", "name"), every_tensor("decoder", "vocoder"))
def test_any_decoder_decodes(codec: Codec, part: str, name: str) -> None:
    codes = codec.encode(noise(5000), 44100)
    other = changed(codec, part, name)
    assert other.tokenizer_id == codec.tokenizer_id
    assert other.decode(codes).shape == (5000,)


@pytest.mark.parametrize(("part", "name"), every_tensor("encoder", "codebook"))
def test_another_tokenizer_is_refused(codec: Codec, part: str, name: str) -> None:
    codes = codec.encode(noise(5000), 44100)
    other = changed(codec, part, name)
    with pytest.raises(ModelMismatchError) as caught:
        other.decode(codes)
    for words in (codec.tokenizer_id, other.tokenizer_id, f"such as {codec.model}"):
        assert words in str(caught.value)


def test_through_files(codec: Codec, small_weights: Path, tmp_path: Path) -> None:
    """Tokens of one weights file are decoded by another of the same tokenizer, and back."""
    path = tmp_path / "better.safetensors"
    save(changed(codec, "vocoder", tensors_of(codec.vocoder)[0][0]), path)
    better = melcap.load(path)
    assert better.model != codec.model
    for one, other in ((codec, better), (better, codec)):
        codes = one.encode(noise(5000), 44100)
        assert codes.model == one.model
        assert torch.equal(other.decode(codes), other.decode(other.encode(noise(5000), 44100)))


OTHERS: list[Callable[[CodecConfig], CodecConfig]] = [
    lambda config: replace(config, mel=replace(config.mel, mean=-2.1)),
    lambda config: replace(config, mel=replace(config.mel, floor=1e-4)),
    lambda config: replace(config, mel=replace(config.mel, sample_rate=48000)),
    lambda config: replace(config, tokenizer=replace(config.tokenizer, unit_latents=True)),
]
SAME: list[Callable[[CodecConfig], CodecConfig]] = [
    lambda config: replace(config, name="other"),
    lambda config: replace(config, mel=replace(config.mel, mean=-2)),
    lambda config: replace(config, vocoder=replace(config.vocoder, dim=32)),
    lambda config: replace(config, tokenizer=replace(config.tokenizer, decoder_blocks=(2, 0, 1))),
]


@pytest.mark.parametrize(
    ("change", "same"), [*((each, False) for each in OTHERS), *((each, True) for each in SAME)]
)
def test_which_settings_change_the_id(
    codec: Codec, change: Callable[[CodecConfig], CodecConfig], same: bool
) -> None:
    encoder, vectors = codec.encoder.state_dict(), codec.codebook.vectors
    found = tokenizer_id_of(change(codec.config), encoder, vectors)
    assert (found == codec.tokenizer_id) == same


def test_the_id_is_the_same_on_every_machine_and_in_every_version() -> None:
    """Files hold the id, so another way to compute it would make them unreadable."""
    codec = Codec(SMALL)
    with torch.no_grad():
        for number, (_, tensor) in enumerate(sorted(tensors_of(codec.encoder))):
            tensor.copy_(torch.arange(tensor.numel()).view_as(tensor) / 64 + number)
        codec.codebook.vectors.copy_(torch.arange(2400).view(300, 8) / 256)
    assert codec.tokenizer_id == "fc5291fa1aa5fcf4"


def test_the_id_follows_the_weights(codec: Codec, small_weights: Path) -> None:
    own = melcap.load(small_weights)
    before = own.tokenizer_id
    assert own.double().tokenizer_id == before
    other = draw_weights(Codec(SMALL), seed=5)
    own.load_state_dict(other.state_dict())
    assert own.tokenizer_id == other.tokenizer_id != before
    own.load_state_dict(codec.state_dict(), assign=True)
    assert own.tokenizer_id == before
    own.codebook.vectors[3, 3] += 1
    assert own.tokenizer_id != before
    own.codebook.vectors[3, 3] -= 1
    own.encoder = copy.deepcopy(other.encoder)
    assert own.tokenizer_id != before


def test_a_new_tensor_at_the_address_of_another(codec: Codec) -> None:
    """A new tensor may have the address and the version of one that is gone."""
    own = copy.deepcopy(codec)
    memory = codec.codebook.vectors.numpy().copy()
    own.codebook.vectors = torch.from_numpy(memory)
    assert own.tokenizer_id == codec.tokenizer_id
    memory += 1
    own.codebook.vectors = torch.from_numpy(memory)
    assert own.tokenizer_id != codec.tokenizer_id


def test_weights_made_in_inference_mode(codec: Codec) -> None:
    """Tensors made in inference mode do not count their changes."""
    with torch.inference_mode():
        own = Codec(SMALL)
        own.load_state_dict(codec.state_dict())
        assert own.tokenizer_id == codec.tokenizer_id
        own.codebook.vectors[0, 0] += 1
        assert own.tokenizer_id != codec.tokenizer_id


class TestDecoder:
    @pytest.fixture
    def better(self, codec: Codec) -> Codec:
        """Return a codec of the same tokenizer with another mel decoder and a larger vocoder."""
        config = replace(
            codec.config,
            name="better",
            tokenizer=replace(codec.config.tokenizer, decoder_blocks=(0, 2, 1)),
            vocoder=replace(codec.config.vocoder, dim=20, griffin_lim_steps=2),
        )
        made = draw_weights(Codec(config), seed=7)
        for part in ("encoder", "codebook"):
            made.get_submodule(part).load_state_dict(codec.get_submodule(part).state_dict())
        return made

    @pytest.mark.slow
    def test_alone_in_a_file(
        self, better: Codec, codec: Codec, small_weights: Path, tmp_path: Path
    ) -> None:
        alone, whole = tmp_path / "decoder.safetensors", tmp_path / "whole.safetensors"
        digest = save_decoder(better, alone)
        save(better, whole)
        assert alone.stat().st_size < whole.stat().st_size
        expected, codes = melcap.load(whole), codec.encode(noise(9000), 44100)
        for path in (alone, whole):
            found = melcap.load(small_weights, decoder=path)
            assert found.config == expected.config
            assert found.tokenizer_id == codec.tokenizer_id
            assert torch.equal(found.decode(codes), expected.decode(codes))
            assert torch.equal(found.encode(noise(9000), 44100).tokens, codes.tokens)
            assert not found.training
            assert not any(each.requires_grad for each in found.parameters())
        assert melcap.load(small_weights, decoder=alone).model == f"better-{digest[:16]}"

    def test_of_weights_that_are_not_rounded_yet(self, tmp_path: Path) -> None:
        """Both files hold half precision, so they belong to one tokenizer."""
        made = draw_weights(Codec(SMALL), seed=3)
        save(made, tmp_path / "whole.safetensors")
        save_decoder(made, tmp_path / "decoder.safetensors")
        found = melcap.load(
            tmp_path / "whole.safetensors", decoder=tmp_path / "decoder.safetensors"
        )
        assert found.tokenizer_id != made.tokenizer_id

    def test_of_another_tokenizer(self, better: Codec, small_weights: Path, tmp_path: Path) -> None:
        path = tmp_path / "decoder.safetensors"
        with torch.no_grad():
            better.codebook.vectors[7, 7] += 0.5
        for write in (save_decoder, save):
            write(better, path)
            with pytest.raises(
                ModelMismatchError, match=rf"{path}: .* for tokenizer \w{{16}}, and"
            ):
                melcap.load(small_weights, decoder=path)

    def test_alone_is_not_a_codec(self, better: Codec, tmp_path: Path) -> None:
        path = tmp_path / "decoder.safetensors"
        save_decoder(better, path)
        with pytest.raises(WeightsError, match=r"a decoder alone, for tokenizer .*decoder="):
            melcap.load(path)

    @pytest.mark.slow
    def test_that_does_not_fit_its_configuration(
        self, better: Codec, small_weights: Path, tmp_path: Path
    ) -> None:
        path = tmp_path / "decoder.safetensors"
        del better.vocoder[-1]
        better.decoder[0].conv.bias = None
        save_decoder_of(better, path)
        with pytest.raises(WeightsError, match="do not fit their configuration"):
            melcap.load(small_weights, decoder=path)


def save_decoder_of(codec: Codec, path: Path) -> None:
    """Write the decoder as it is, whether it fits its configuration or not."""
    from melcap.io import weights_file

    state = {
        name: value.half()
        for name, value in codec.state_dict().items()
        if name.startswith(weights_file.DECODER)
    }
    weights_file.write(path, codec.config, state, codec.tokenizer_id)
