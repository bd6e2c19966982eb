"""Configurations refuse wrong values, give derived sizes, and survive the way to JSON and back."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, asdict, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melcap.config import CodecConfig, MelSpec, TokenizerConfig, VocoderConfig
from melcap.errors import WeightsError
from tests.helpers import SMALL


def test_sizes_of_lite() -> None:
    lite = CodecConfig()
    assert lite.name == "melcap-lite"
    assert (lite.mel.sample_rate, lite.mel.n_fft, lite.mel.hop, lite.mel.n_mels) == (
        44100,
        1024,
        256,
        96,
    )
    assert lite.tokenizer.codebook_size == 8192
    assert (lite.rows, lite.column_samples) == (12, 2048)
    assert (lite.tokenizer.patch_bins, lite.tokenizer.patch_frames) == (8, 8)
    assert lite.tokenizer.bits == 13
    assert lite.tokens_per_second == pytest.approx(258.4, abs=0.01)
    assert lite.bits_per_second == pytest.approx(3359.2, abs=0.1)
    assert lite.mel.margin == 384


@pytest.mark.parametrize(
    ("time_levels", "bins", "frames"), [(0, 16, 16), (1, 8, 16), (2, 4, 16), (3, 2, 16)]
)
def test_time_levels_halve_frames_alone(time_levels: int, bins: int, frames: int) -> None:
    """The Haar patch halves both always, so one of four levels is left with three in time."""
    tokenizer = TokenizerConfig((4,) * 4, (1,) * 4, (1,) * 4, time_levels=time_levels)
    assert (tokenizer.patch_bins, tokenizer.patch_frames) == (bins, frames)
    assert tokenizer.level_strides == ((2, 2),) * (4 - time_levels) + ((1, 2),) * time_levels
    config = CodecConfig(tokenizer=tokenizer)
    assert (config.rows, config.column_samples) == (96 // bins, 256 * frames)
    assert config.tokens_per_second == pytest.approx(96 / bins * 44100 / (256 * frames))


@given(
    st.builds(
        MelSpec,
        sample_rate=st.integers(1000, 96000),
        n_fft=st.integers(32, 256).map(lambda half: 2 * half),
        hop=st.sampled_from([8, 16, 32]),
        n_mels=st.integers(1, 8).map(lambda rows: 8 * rows),
        floor=st.floats(1e-10, 1),
        mean=st.floats(-10, 10),
        std=st.floats(0.1, 10),
    ),
    st.builds(
        TokenizerConfig,
        channels=st.just((4, 5, 6)),
        encoder_blocks=st.tuples(*[st.integers(0, 4)] * 3),
        decoder_blocks=st.tuples(*[st.integers(0, 4)] * 3),
        codebook_size=st.integers(2, 65536),
        codebook_dim=st.integers(1, 64),
        unit_latents=st.booleans(),
        time_levels=st.integers(0, 2),
    ),
    st.builds(
        VocoderConfig,
        blocks=st.integers(0, 8),
        head_overlap=st.sampled_from([4, 6, 8]),
        griffin_lim_steps=st.just(0),  # these ask for an n_fft of so many hops
        griffin_lim_momentum=st.floats(0, 0.99),
    ),
    st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=64),
)
def test_json_and_back(
    mel: MelSpec, tokenizer: TokenizerConfig, vocoder: VocoderConfig, name: str
) -> None:
    config = CodecConfig(name, mel, tokenizer, vocoder)
    back = CodecConfig.from_json(config.to_json())
    assert back == config
    assert hash(back) == hash(config), "tuples are tuples again"
    assert json.loads(config.to_json())["mel"] == asdict(mel)


@pytest.mark.parametrize(
    ("size", "bits"), [(2, 1), (3, 2), (4, 2), (8191, 13), (8192, 13), (8193, 14), (65536, 16)]
)
def test_bits_hold_every_token(size: int, bits: int) -> None:
    tokenizer = TokenizerConfig(codebook_size=size)
    assert tokenizer.bits == bits
    assert size - 1 < 2**tokenizer.bits


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("mel", {"sample_rate": 0}, "sample_rate must be a whole number from 1000 to 768000, not 0"),
    ("mel", {"hop": 0}, "hop must be a whole number from 1 to 16384, not 0"),
    ("mel", {"hop": -128}, "hop"),
    ("mel", {"hop": 1024}, "hop must be in 1..n_fft"),
    ("mel", {"n_fft": 511}, "even, not 128 and 511"),
    ("mel", {"n_mels": 0}, "n_mels must be a whole number from 1 to 1024, not 0"),
    ("mel", {"n_mels": 20}, "n_mels must be a multiple of 8, not 20"),
    ("mel", {"floor": 0.0}, "floor must be a number from 1e-30"),
    ("mel", {"floor": float("nan")}, "floor must be a number"),
    ("mel", {"std": -1.0}, "std must be a number"),
    ("tokenizer", {"channels": (4, 5)}, "one entry per level"),
    ("tokenizer", {"encoder_blocks": ()}, "one entry per level"),
    (
        "tokenizer",
        {"codebook_size": 1},
        "codebook_size must be a whole number from 2 to 65536, not 1",
    ),
    ("tokenizer", {"codebook_size": 65537}, "65537"),
    ("tokenizer", {"codebook_dim": 0}, "codebook_dim must be a whole number from 1"),
    ("tokenizer", {"time_levels": -1}, "time_levels must be a whole number from 0"),
    ("tokenizer", {"time_levels": 3}, "fewer than the levels, not 3"),
    ("vocoder", {"strides": (4, 2)}, "one entry per upsampling stage"),
    ("vocoder", {"stage_blocks": ()}, "one entry per upsampling stage"),
    ("vocoder", {"strides": (3,)}, r"strides \(3\) must divide hop \(128\)"),
    ("vocoder", {"strides": (0,)}, "strides must be at most 8 whole numbers from 1"),
    ("vocoder", {"strides": (-4,)}, "strides must be"),
    ("vocoder", {"head_overlap": 2}, "head_overlap must be a whole number from 3 to 16, not 2"),
    (
        "vocoder",
        {"griffin_lim_steps": -1},
        "griffin_lim_steps must be a whole number from 0 to 256",
    ),
    ("vocoder", {"griffin_lim_momentum": 1.0}, "griffin_lim_momentum must be below 1"),
    ("vocoder", {"griffin_lim_steps": 10**9}, "griffin_lim_steps .*, not 1000000000"),
    ("vocoder", {"griffin_lim_steps": True}, "griffin_lim_steps .*, not True"),
    ("vocoder", {"blocks": 10**6}, "blocks must be"),
    ("vocoder", {"dim": 10**9}, "dim must be"),
    ("vocoder", {"hidden": 2**40}, "hidden must be"),
    ("vocoder", {"stage_blocks": (10**6,)}, "stage_blocks must be"),
    ("vocoder", {"stage_channels": (10**6,)}, "stage_channels must be"),
    ("vocoder", {"strides": (1,) * 9}, "strides must be at most 8"),
    ("tokenizer", {"channels": (10**6, 1, 1)}, "channels must be"),
    ("tokenizer", {"encoder_blocks": (10**6, 1, 1)}, "encoder_blocks must be"),
    ("tokenizer", {"decoder_blocks": (1, 1, 65)}, "decoder_blocks must be"),
    ("tokenizer", {"codebook_dim": 10**6}, "codebook_dim must be"),
    ("tokenizer", {"unit_latents": 1}, "unit_latents must be a truth value"),
    ("mel", {"n_fft": 2**20}, "n_fft must be"),
    ("mel", {"n_mels": 2**20}, "n_mels must be"),
    ("mel", {"mean": "x"}, "mean must be a number from -1e.06 to 1e.06, not 'x'"),
    ("mel", {"mean": float("inf")}, "mean must be a number"),
    ("mel", {"sample_rate": 44100.0}, "sample_rate must be a whole number"),
    ("mel", {"n_fft": 640}, "4, 6, 8 ... hops, not 640 with hop 128"),
    ("mel", {"n_fft": 256}, "4, 6, 8 ... hops, not 256 with hop 128"),
]


def test_a_field_that_is_missing_takes_its_default() -> None:
    """The weights that ship do not name `time_levels`."""
    data = json.loads(SMALL.to_json())
    del data["tokenizer"]["time_levels"], data["vocoder"]["griffin_lim_momentum"]
    assert CodecConfig.from_json(json.dumps(data)) == SMALL


@pytest.mark.parametrize(("section", "values", "words"), REFUSED)
def test_wrong_values_are_refused(section: str, values: dict[str, Any], words: str) -> None:
    with pytest.raises(WeightsError, match=f"configuration: .*{words}") as caught:
        replace(SMALL, **{section: replace(getattr(SMALL, section), **values)})
    assert "\n" not in str(caught.value)
    text = json.loads(SMALL.to_json())
    text[section].update(values)
    with pytest.raises(WeightsError):
        CodecConfig.from_json(json.dumps(text))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "null",
        "3",
        '"lite"',
        "[]",
        "{}",
        '{"name": "x"}',
        '{"name": "x", "mel": [], "tokenizer": {}, "vocoder": {}}',
        '{"name": "x", "mel": {}, "tokenizer": 3, "vocoder": {}}',
        '{"name": "x", "mel": {}, "tokenizer": {}, "vocoder": null}',
        '{"name": "x", "mel": {"colour": 1}, "tokenizer": {}, "vocoder": {}}',
        '{"name": "x", "mel": {"n_fft": "1024"}, "tokenizer": {}, "vocoder": {}}',
        '{"name": "x", "mel": {}, "tokenizer": {"channels": 3}, "vocoder": {}}',
        '{"name": "x", "mel": {}, "tokenizer": {"time_levels": "1"}, "vocoder": {}}',
        '{"name": "x", "mel": {}, "tokenizer": {"time_levels": 0.5}, "vocoder": {}}',
        '{"name": "x", "mel": {}, "tokenizer": {"time_levels": null}, "vocoder": {}}',
        '{"name": "x", "mel": {}, "tokenizer": {}, "vocoder": {"strides": ["4"]}}',
        '{"name": "x", "mel": {}, "tokenizer": {}, "vocoder": {"strides": [null]}}',
        '{"name": "", "mel": {}, "tokenizer": {}, "vocoder": {}}',
        '{"name": 3, "mel": {}, "tokenizer": {}, "vocoder": {}}',
        '{"name": "a\\nb", "mel": {}, "tokenizer": {}, "vocoder": {}}',
        json.dumps({"name": 65 * "x", "mel": {}, "tokenizer": {}, "vocoder": {}}),
        "[" * 5_000 + "]" * 5_000,
        '{"a":' * 5_000 + "1" + "}" * 5_000,
        "[" * 500_000 + "]" * 500_000,
        '{"name": "x", "mel": {"n_fft": ' + "9" * 5_000 + '}, "tokenizer": {}, "vocoder": {}}',
        '{"name": "x", "mel": {"n_fft": ' + "9" * 4_000 + '}, "tokenizer": {}, "vocoder": {}}',
        '{"name": "x", "mel": {}, "tokenizer": {}, "vocoder": {}}' + " " * 2**20,
    ],
)
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(WeightsError) as caught:
        CodecConfig.from_json(text)
    assert "\n" not in str(caught.value)


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(ANY_JSON.filter(lambda data: data != {}))
def test_any_json_is_refused_with_one_kind_of_error(data: object) -> None:
    for value in (data, {"name": data, "mel": data, "tokenizer": data, "vocoder": data}):
        with pytest.raises(WeightsError):
            CodecConfig.from_json(json.dumps(value))


def test_configurations_do_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        SMALL.mel.hop = 3  # type: ignore[misc]
