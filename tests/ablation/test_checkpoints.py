"""A checkpoint of each stage as a codec of the scorecard: aligned, with its own weights."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import melcap
from melcap.ablation.checkpoints import peer
from melcap.codec import Codec
from melcap.config import VocoderConfig
from melcap.errors import InputError
from melcap.evaluation.clips import Clip
from melcap.evaluation.measures import metrics
from melcap.evaluation.measures.signals import Wave
from melcap.evaluation.measures.spectral import mel_l1
from melcap.evaluation.peers import registry
from melcap.evaluation.peers.partial import WithoutVocoder, run_padded
from melcap.evaluation.scorecard import compute, jobs_for
from melcap.model.stages import Chain, Stage, outputs_of, run
from melcap.pretrained import save as save_weights
from melcap.training.saving import TrainingProgress, save
from melcap.training.start import prepare
from tests.helpers import SMALL

RATE = 44100
DATA = Path(__file__).parents[1] / "data"


@pytest.fixture(scope="module")
def part(speech: Wave) -> Wave:
    return speech[:60_001].astype(np.float32)


def checkpoint(out: Path, **settings: Any) -> str:
    """A run from the weights that ship, which has not begun to train."""
    start = prepare(out, settings, "default", batch=1)
    out.mkdir(exist_ok=True)
    save(start.checkpoint, start.recipe, {}, TrainingProgress(0, 0.0, {}, []))
    return str(start.checkpoint)


def as_in_training(path: Path) -> Path:
    """The weights that ship, with the Griffin-Lim steps that training goes on with."""
    shipped = melcap.load()
    vocoder = replace(shipped.config.vocoder, griffin_lim_steps=VocoderConfig.griffin_lim_steps)
    codec = Codec(replace(shipped.config, vocoder=vocoder))
    codec.load_state_dict(shipped.state_dict())
    save_weights(codec, path)
    return path


class Known(Stage):
    """A decoder that gives one mel, whatever the tokens."""

    def __init__(self, mel: Tensor, patch: int) -> None:
        super().__init__()
        self.mel, self.up = mel, patch

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[-1] * self.up == self.mel.shape[-1]
        return self.mel


@pytest.mark.slow
def test_a_first_stage_is_decoded_by_griffin_lim(part: Wave, tmp_path: Path) -> None:
    codec = peer(checkpoint(tmp_path / "run", stage=1))
    assert isinstance(codec, WithoutVocoder)
    coded = codec.encode(part, RATE)
    assert np.array_equal(coded.tokens, melcap.load().encode(part, RATE).tokens)
    assert codec.codebook_size == 8192
    columns = -(-len(part) // 2048)
    padded = F.pad(torch.from_numpy(part), (384, columns * 2048 - len(part) + 384))
    codec.codec.decoder = Chain(Known(codec.codec.front(padded[None]), 8))
    decoded = codec.decode(coded)
    assert decoded.shape == part.shape
    assert decoded.dtype == np.float32
    inner = slice(1000, -1000)
    shifted = (np.roll(decoded, by)[inner] for by in (-64, 0, 64))
    early, right, late = (mel_l1(part[inner], wave, RATE) for wave in shifted)
    assert right < 0.2
    assert right < min(early, late)  # half a hop too early, and the later would be nearer


def test_before_and_after_a_clip_is_silence(part: Wave, tmp_path: Path) -> None:
    """Tokens in the middle of many that say silence are decoded to the same mel."""
    codec = peer(checkpoint(tmp_path / "run", stage=1))
    assert isinstance(codec, WithoutVocoder)
    weights = codec.codec
    tokens = weights.encode(part, RATE).tokens[None]
    quiet = weights.silence[None, :, None]
    around = torch.cat((quiet.expand(-1, -1, 20), tokens, quiet.expand(-1, -1, 20)), -1)
    made = run(weights.decoder, weights.codebook.latents(around))
    given, _ = outputs_of([*weights.decoder], 0, around.shape[-1])
    frames = tokens.shape[-1] * 8
    latents = (weights.codebook.latents(each) for each in (tokens, quiet))
    assert torch.allclose(
        run_padded(weights.decoder, *latents, frames),
        made[..., 160 - given : 160 - given + frames],
        atol=1e-4,
    )


@pytest.mark.slow
@pytest.mark.parametrize("rate", [RATE, 24000])
def test_a_vocoder_is_given_the_true_mel(part: Wave, tmp_path: Path, rate: int) -> None:
    codec = peer(checkpoint(tmp_path / "run", stage=2, from_mels=True))
    assert codec.bound
    decoded, size = codec.round_trip(part, rate)
    assert size == 0
    assert decoded.shape == part.shape
    if rate == RATE:
        shipped = melcap.load(as_in_training(tmp_path / "a.safetensors"))
        around = F.pad(torch.from_numpy(part)[None], (256 * 60 + 384, 256 * 60))
        stages = [shipped.front, *shipped.vocoder]
        given, _ = outputs_of(stages, -256 * 60 - 384, len(part))
        wanted = run(stages, around)[0, -given:][: len(part)].clamp(-1, 1)
        # Griffin-Lim steps make rounding grow where a bin has hardly a phase; a shift by one
        # sample is hundreds of times more
        assert np.square(decoded - wanted.numpy()).mean() ** 0.5 < 2**-15


@pytest.mark.slow
def test_a_joint_stage_is_the_codec(part: Wave, tmp_path: Path) -> None:
    """One that has not begun to train is the codec that it began with."""
    codec = peer(checkpoint(tmp_path / "run", joint=True))
    shipped = registry.peer("melcap")
    decoded, size = codec.round_trip(part, RATE)
    expected, as_many = shipped.round_trip(part, RATE)
    assert size == as_many
    assert (decoded == expected).all()
    assert codec.codebook_size == 8192
    assert codec.identity != shipped.identity
    assert registry.label(str(tmp_path / "run" / "joint")) == "run-joint"


@pytest.mark.slow
def test_a_second_stage_is_the_codec(part: Wave, tmp_path: Path) -> None:
    codec = peer(checkpoint(tmp_path / "run", stage=2))
    decoded, size = codec.round_trip(part, RATE)
    weights = as_in_training(tmp_path / "a.safetensors")
    shipped, as_many = peer(str(weights)).round_trip(part, RATE)
    assert size == as_many
    assert (decoded == shipped).all()


@pytest.mark.slow
def test_what_is_exported_is_measured(tmp_path: Path, part: Wave) -> None:
    """The average of the weights, and other weights are another codec."""
    found = []
    for scale in (1.0, 0.0):
        start = prepare(tmp_path / f"{scale}", {"stage": 1}, "default", batch=1)
        start.checkpoint.parent.mkdir()
        averages = {
            name: torch.optim.swa_utils.AveragedModel(module)
            for name, module in start.recipe.averaged().items()
        }
        for name, average in averages.items():
            average.update_parameters(start.recipe.averaged()[name])
        with torch.no_grad():
            for parameter in averages["decoder"].parameters():
                parameter *= scale
        save(start.checkpoint, start.recipe, averages, TrainingProgress(0, 0.0, {}, []))
        found.append(peer(str(start.checkpoint)))
    assert found[0].identity != found[1].identity
    one, other = (codec.round_trip(part, RATE)[0] for codec in found)
    assert mel_l1(one, other, RATE) > 0.5


def test_what_cannot_be_measured_is_refused(tmp_path: Path) -> None:
    other = replace(SMALL, mel=replace(SMALL.mel, n_mels=24))
    start = prepare(tmp_path, {"stage": 1, "codec": other}, None, batch=1)
    save(start.checkpoint, start.recipe, {}, TrainingProgress(0, 0.0, {}, []))
    with pytest.raises(InputError, match=r"stage1: only stage 2 of this codec can be measured"):
        peer(str(start.checkpoint))
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "checkpoint.json").write_text("nothing")
    with pytest.raises(InputError, match="none: not a checkpoint"):
        peer(str(tmp_path / "none"))
    with pytest.raises(InputError, match="unknown codec"):
        peer(str(tmp_path))


def test_files_have_names_in_pictures(tmp_path: Path) -> None:
    assert registry.label(checkpoint(tmp_path / "a", stage=1)) == "a-stage1"
    assert registry.label("weights/lite.safetensors") == "lite"
    assert registry.label("opus-12") == "opus-12"


def test_workers_find_a_checkpoint_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job holds the name of a checkpoint and a function that a worker process can import."""
    name = checkpoint(tmp_path / "run", stage=2)
    clips = [Clip(DATA, "speech.flac", "noise")]
    jobs = [pickle.loads(pickle.dumps(job)) for job in jobs_for([name], clips, 0.2, find_peer=peer)]
    assert [job.peer for job in jobs] == [peer(name)]
    monkeypatch.setattr(metrics, "measure", lambda *_, **__: {})
    (row,), failures = compute(jobs, tmp_path / "scores.jsonl", 1)
    assert not failures
    assert row["codec"] == name
    assert row["identity"] == peer(name).identity
    with pytest.raises(InputError, match="unknown codec"):
        jobs_for([name], clips, 0.2)
