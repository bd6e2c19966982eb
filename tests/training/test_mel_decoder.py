"""Stage 1 is continued with the mel decoder beside the weights, and with no other tokenizer's."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from melcap.codec import Codec
from melcap.errors import InputError, WeightsError
from melcap.pretrained import load, save
from melcap.training.audio_cache import AudioCache
from melcap.training.checkpoint import Checkpoint
from melcap.training.export import ExportOptions, export_weights
from melcap.training.mel_decoder import load_mel_decoder, path_beside, save_mel_decoder
from melcap.training.stage1 import Stage1
from melcap.training.stage2 import Stage2
from melcap.training.start import prepare
from tests.helpers import SMALL, draw_weights
from tests.training.helpers import (
    cache_of_clips,
    stage_1,
    stage_2,
    states_for_stage_2,
    train_to,
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> AudioCache:
    return cache_of_clips(tmp_path_factory.mktemp("data"))


@pytest.fixture
def weights(small_weights: Path, tmp_path: Path) -> Path:
    path = tmp_path / "small.safetensors"
    shutil.copyfile(small_weights, path)
    return path


def other_decoder(codec: Codec) -> dict[str, torch.Tensor]:
    return draw_weights(Codec(codec.config), 5).decoder.state_dict()


def test_stage_1_begins_with_the_decoder_beside_the_weights(
    weights: Path, codec: Codec, tmp_path: Path
) -> None:
    state = other_decoder(codec)
    save_mel_decoder(path_beside(weights), state, codec)
    recipe = prepare(tmp_path / "run", {"stage": 1}, str(weights), batch=1).recipe
    assert isinstance(recipe, Stage1)
    for key, value in recipe.decoder.state_dict().items():
        assert torch.equal(value, state[key].half().float())
    for key, value in recipe.encoder.state_dict().items():
        assert torch.equal(value, codec.encoder.state_dict()[key])


def test_a_decoder_of_another_tokenizer_is_refused(
    weights: Path, codec: Codec, tmp_path: Path
) -> None:
    for part in ("encoder", "codebook"):
        other, own = draw_weights(Codec(codec.config), 3), codec.get_submodule(part)
        other.load_state_dict(codec.state_dict())
        other.get_submodule(part).load_state_dict(
            {name: value + 0.5 for name, value in own.state_dict().items()}
        )
        save_mel_decoder(path_beside(weights), other_decoder(codec), other)
        with pytest.raises(WeightsError, match="belongs to another tokenizer"):
            prepare(tmp_path / "run", {"stage": 1}, str(weights), batch=1)


@pytest.mark.parametrize("content", [b"", b"words", b"\x08\0\0\0\0\0\0\0{}      "])
def test_what_is_no_mel_decoder(weights: Path, codec: Codec, content: bytes) -> None:
    path = path_beside(weights)
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"small\.mel-decoder\.safetensors: "):
        load_mel_decoder(path, codec)


@pytest.mark.slow
def test_a_tokenizer_that_stays_as_it_is(
    cache: AudioCache, weights: Path, codec: Codec, tmp_path: Path
) -> None:
    """Encoder and codebook stay those of the weights, the decoder moves, and the run resumes."""
    given = {"stage": 1, "decoder_only": True, "columns": 4, "warmup": 1}
    out = tmp_path / "run"
    for steps in (2, 4):
        recipe = prepare(out, given, str(weights), batch=2).recipe
        train_to(steps, recipe, cache, out / "stage1")
    found = Checkpoint(out / "stage1").exported()
    assert torch.equal(found["ema_codebook"]["codebook.vectors"], codec.codebook.vectors)
    for key, value in codec.encoder.state_dict().items():
        assert torch.equal(found["encoder"][key], value)
    moved = [not torch.equal(found["decoder"][k], v) for k, v in codec.decoder.state_dict().items()]
    assert any(moved)
    figures = recipe.step(torch.randn(2, recipe.samples))
    assert float(figures["commitment"]) == 0
    assert float(figures["codes_in_batch"]) > 0


def test_it_learns_on_the_tokens(cache: AudioCache, weights: Path, codec: Codec) -> None:
    """The decoder gets quantised latents: with a codebook of one vector they are all the same."""
    recipe = prepare(Path("nowhere"), {"stage": 1, "decoder_only": True}, str(weights), 2).recipe
    assert isinstance(recipe, Stage1)
    recipe.codebook.vectors.copy_(recipe.codebook.vectors[:1].expand_as(recipe.codebook.vectors))
    latents, commitment, coded = recipe._quantised(recipe.front(torch.randn(2, recipe.samples)))
    assert coded.tokens is not None
    assert int(coded.tokens.max()) == 0
    assert float(latents.std(dim=(0, 2, 3)).max()) == 0
    assert float(commitment) == 0


def test_a_decoder_alone_needs_weights(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"decoder_only needs a tokenizer.*--weights"):
        prepare(tmp_path, {"stage": 1, "decoder_only": True, "codec": SMALL}, None, batch=1)
    with pytest.raises(InputError, match="decoder_only is for stage 1 alone"):
        prepare(tmp_path, {"stage": 2, "decoder_only": True, "codec": SMALL}, None, batch=1)


@pytest.mark.slow
def test_stage_2_takes_the_tokenizer_of_its_folder_and_the_vocoder_of_the_weights(
    cache: AudioCache, codec: Codec, tmp_path: Path
) -> None:
    """Both may have other numbers of Griffin-Lim steps, and tokenizers of other sizes."""
    from dataclasses import replace

    longer = Codec(replace(SMALL, vocoder=replace(SMALL.vocoder, griffin_lim_steps=9)))
    longer.load_state_dict(draw_weights(Codec(SMALL), 2).state_dict())
    save(longer, tmp_path / "longer.safetensors")
    tokenizer = replace(SMALL.tokenizer, codebook_dim=5)
    first = stage_1(codec=replace(SMALL, name="other", tokenizer=tokenizer), codebook_warmup=0)
    train_to(1, first, cache, tmp_path / "run" / "stage1")
    given = {"stage": 2, "constant_phase": True}
    start = prepare(tmp_path / "run", given, str(tmp_path / "longer.safetensors"), batch=1)
    recipe = start.recipe
    assert isinstance(recipe, Stage2)
    codec_config = recipe.config.codec
    assert codec_config.name == "other"
    assert codec_config.tokenizer.codebook_dim == 5
    assert codec_config.vocoder.griffin_lim_steps == 9
    kept = Checkpoint(tmp_path / "run" / "stage1").exported()
    for key, value in recipe.encoder.state_dict().items():
        assert torch.equal(value, kept["encoder"][key])
    vocoder = load(tmp_path / "longer.safetensors").vocoder.state_dict()
    for key, value in recipe.vocoder.state_dict().items():
        assert torch.equal(value, vocoder[key])
    assert [record["recipe"] for record in start.history] == ["stage1", "weights"]
    train_to(1, recipe, cache, tmp_path / "run" / "stage2")
    again = prepare(tmp_path / "run", given, str(tmp_path / "longer.safetensors"), batch=1)
    assert again.recipe.config == recipe.config, "it goes on with the same command"


@pytest.mark.slow
def test_it_is_exported_with_its_tokenizer_alone(cache: AudioCache, tmp_path: Path) -> None:
    """Once stage 1 is trained further, its decoder does not belong to the tokenizer of stage 2."""
    first = stage_1(codebook_warmup=0)
    train_to(2, first, cache, tmp_path / "stage1")
    train_to(2, stage_2(states_for_stage_2(first)), cache, tmp_path / "stage2")
    target = tmp_path / "a.safetensors"
    export_weights(tmp_path, target)
    made = load(target)
    state = load_mel_decoder(path_beside(target), made)
    kept = Checkpoint(tmp_path / "stage1").exported()["decoder"]
    assert all(torch.equal(value, kept[key].half().float()) for key, value in state.items())
    alone = tmp_path / "decoder.safetensors"
    export_weights(tmp_path, alone, ExportOptions(decoder_only=True))
    codes = made.encode(torch.zeros(3000), 44100)
    assert torch.equal(load(target, decoder=alone).decode(codes), made.decode(codes))
    train_to(3, first, cache, tmp_path / "stage1")
    export_weights(tmp_path, target, ExportOptions(force=True))
    assert not path_beside(target).exists()


@pytest.mark.slow
def test_a_tokenizer_that_has_moved_on_is_told(cache: AudioCache, tmp_path: Path) -> None:
    first = stage_1(codebook_warmup=0)
    train_to(2, first, cache, tmp_path / "stage1")
    train_to(1, stage_2(states_for_stage_2(first)), cache, tmp_path / "stage2")
    assert prepare(tmp_path, {"stage": 2}, None, batch=1).notes == []
    train_to(3, first, cache, tmp_path / "stage1")
    (said,) = prepare(tmp_path, {"stage": 2}, None, batch=1).notes
    assert "stage2 keeps the tokenizer that it began with" in said


def test_the_mel_decoder_that_ships_belongs_to_the_weights_that_ship(lite: Codec) -> None:
    from melcap.pretrained import default_file

    path = path_beside(default_file())
    state = load_mel_decoder(path, lite)
    assert state.keys() == lite.decoder.state_dict().keys()
