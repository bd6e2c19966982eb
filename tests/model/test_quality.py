"""Qualities share tokens and weights, and differ in their number of Griffin-Lim steps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import melcap
from melcap import Codes, audio
from melcap.cli import commands as cli
from melcap.codec import Codec
from melcap.errors import InputError
from melcap.model.griffin_lim import GriffinLim
from melcap.model.quality import QUALITIES, Quality, griffin_lim_steps
from melcap.pretrained import save, save_decoder
from tests.helpers import SMALL, draw_weights, noise, save_drawn

STEPS = 8


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the weights file of a codec with 8 steps."""
    config = replace(SMALL, vocoder=replace(SMALL.vocoder, griffin_lim_steps=STEPS))
    return save_drawn(config, tmp_path_factory.mktemp("quality") / "long.safetensors")


def steps_of(codec: Codec) -> int:
    return sum(stage.steps for stage in codec.vocoder if isinstance(stage, GriffinLim))


@pytest.mark.parametrize("quality", QUALITIES)
def test_a_quality_is_a_number_of_steps(weights: Path, tmp_path: Path, quality: Quality) -> None:
    codec, other = melcap.load(weights), melcap.load(weights, quality=quality)
    steps = griffin_lim_steps(codec.config, quality)
    assert steps_of(other) == steps
    assert (steps == STEPS) == (quality == "default")
    wave = noise(9000)
    codes = codec.encode(wave, 44100)
    assert torch.equal(other.encode(wave, 44100).tokens, codes.tokens)
    assert (other.tokenizer_id, other.model) == (codec.tokenizer_id, codec.model)
    plain = replace(codec.config, vocoder=replace(codec.config.vocoder, griffin_lim_steps=steps))
    expected = Codec(plain)
    expected.load_state_dict(codec.state_dict())
    found = other.decode(codes)
    assert torch.equal(found, expected.decode(replace(codes, tokenizer_id=expected.tokenizer_id)))
    assert torch.equal(found, codec.decode(codes)) == (quality == "default")
    # what is saved is the model, not the level
    save(other, tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == weights.read_bytes()


def test_qualities_are_in_order() -> None:
    config = melcap.load().config
    fast, default, best = (griffin_lim_steps(config, each) for each in QUALITIES)
    assert 1 <= fast < default == config.vocoder.griffin_lim_steps < best
    least = replace(config, vocoder=replace(config.vocoder, griffin_lim_steps=1))
    assert griffin_lim_steps(least, "fast") == 1


def test_streams_have_the_quality_of_their_codec(weights: Path) -> None:
    codec = melcap.load(weights, quality="fast")
    codes = codec.encode(noise(9000), 44100)
    stream = melcap.StreamDecoder(codec)
    found = torch.cat((stream.push(codes.tokens), stream.flush(9000)), dim=-1)[0]
    torch.testing.assert_close(found, codec.decode(codes), atol=1e-4, rtol=0)
    default = melcap.load(weights)
    assert stream.latency < melcap.StreamDecoder(default).latency


@pytest.mark.parametrize("quality", ["great", "", None, 3])
def test_other_qualities_are_refused(weights: Path, quality: Any) -> None:
    with pytest.raises(InputError, match="quality must be one of fast, default, best, not"):
        melcap.load(weights, quality=quality)


@pytest.mark.parametrize("quality", ["fast", "best"])
def test_a_codec_without_steps_has_one_quality(tmp_path: Path, quality: Quality) -> None:
    config = replace(SMALL, vocoder=replace(SMALL.vocoder, griffin_lim_steps=0))
    save(draw_weights(Codec(config)), tmp_path / "plain.safetensors")
    melcap.load(tmp_path / "plain.safetensors")
    with pytest.raises(InputError, match="small has no Griffin-Lim steps"):
        melcap.load(tmp_path / "plain.safetensors", quality=quality)


@pytest.mark.slow
@pytest.mark.parametrize("command", ["decode", "transcode", "detokenize", "plot"])
def test_quality_and_decoder_on_the_command_line(
    weights: Path, tmp_path: Path, command: str
) -> None:
    """Both options, quality and decoder, reach the codec that decodes."""
    codec, other = melcap.load(weights), melcap.load(weights)
    decoder = tmp_path / "decoder.safetensors"
    other.vocoder.load_state_dict(draw_weights(Codec(codec.config), 1).vocoder.state_dict())
    save_decoder(other, decoder)
    audio.write(tmp_path / "a.wav", noise(1, 9000).numpy(), 44100)
    codes = codec.encode(audio.read(tmp_path / "a.wav")[0], 44100)
    (tmp_path / "tokens").mkdir()
    codes.save(tmp_path / "tokens" / "a.melcap")
    source = {"transcode": tmp_path / "a.wav", "detokenize": tmp_path / "tokens"}.get(
        command, tmp_path / "tokens" / "a.melcap"
    )
    made = {}
    for quality in QUALITIES:
        out = tmp_path / quality
        target = (
            out if command == "detokenize" else out / ("a.png" if command == "plot" else "a.wav")
        )
        words = [command, source, "-o", target, "--weights", weights, "--decoder", decoder]
        result = CliRunner().invoke(cli.app, [*map(str, words), "--quality", quality, "--quiet"])
        assert result.exit_code == 0, result.output
        (file,) = out.iterdir()
        made[quality] = file.read_bytes()
        if command != "plot":
            own = melcap.load(weights, quality=quality, decoder=decoder)
            found, _ = audio.read(file)
            expected = own.decode(Codes.load(tmp_path / "tokens" / "a.melcap")).numpy()
            assert abs(found - expected).max() < 2**-15 + 1e-4
    assert len(set(made.values())) == 3
    words = [command, source, "-o", target, "--weights", weights, "--quality", "great"]
    assert CliRunner().invoke(cli.app, [*map(str, words)]).exit_code == 2
