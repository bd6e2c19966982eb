"""Settings of training: checks, JSON in and out, and the changes that a resumed run may make."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import FrozenInstanceError, fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melcap.config import CodecConfig
from melcap.errors import InputError, MelcapError
from melcap.training.checks import CHECKS
from melcap.training.config import MAY_CHANGE, TrainingConfig
from melcap.training.settings_files import read_codec, read_settings
from tests.helpers import SMALL

HERE = Path("runs/stage2")


def test_the_recipes_have_defaults_of_their_own() -> None:
    found = {
        config.recipe: (config.columns, config.rate, config.betas, config.clip)
        for config in (
            TrainingConfig(),
            TrainingConfig.of(stage=2, from_mels=True),
            TrainingConfig.of(stage=2),
            TrainingConfig.of(joint=True),
        )
    }
    assert found == {
        "stage1": (24, 1.5e-3, (0.9, 0.99), 1.0),
        "vocoder": (10, 2e-3, (0.8, 0.99), 10.0),
        "stage2": (26, 7e-4, (0.8, 0.99), 10.0),
        "joint": (26, 7e-4, (0.8, 0.99), 10.0),
    }
    joint = TrainingConfig.of(joint=True)
    assert (joint.stage, joint.constant_phase) == (2, True)
    assert joint.codebook_decay > TrainingConfig().codebook_decay
    assert TrainingConfig.of(stage=2, rate=0.1).rate == 0.1
    assert TrainingConfig.of() == TrainingConfig()


KINDS = st.sampled_from(["waves", "magnitudes"])


@st.composite
def configs(draw: st.DrawFn) -> TrainingConfig:
    stage = draw(st.sampled_from([1, 2]))
    from_mels = draw(st.booleans()) if stage == 2 else False
    joint = draw(st.booleans()) if stage == 2 and not from_mels else False
    above, share = st.floats(1e-6, 1e6), st.floats(0, 0.999)
    settings: dict[str, Any] = {
        "stage": stage,
        "codec": draw(st.sampled_from([SMALL, CodecConfig()])),
        "seed": draw(st.integers(0, 2**40)),
        "batch": draw(st.integers(1, 999)),
        "rate": draw(above),
        "average": draw(share),
        "betas": draw(st.tuples(share, share)),
        "gain_db": draw(st.tuples(st.floats(-60, -1), st.floats(-1, 0))),
        "class_weights": draw(st.dictionaries(st.text(), above, max_size=3)),
        "discriminator_columns": draw(st.none() | st.integers(1, 9)),
        "narrowed": draw(share),
        "spectral": draw(above),
        "discriminators": draw(st.integers(0, 32)),
        "from_mels": from_mels,
        "joint": joint,
        "discriminator_kind": draw(KINDS) if stage == 2 else "waves",
        "encoder_rate": draw(share),
        "picture_weight": draw(above) if joint else 0.0,
        "constant_phase": draw(st.booleans()) if stage == 2 else False,
        "decoder_only": draw(st.booleans()) if stage == 1 else False,
    }
    return TrainingConfig.of(**settings)


@given(configs())
def test_json_in_and_out(config: TrainingConfig) -> None:
    again = TrainingConfig.from_json(config.to_json())
    assert again == config
    again.check_resumes(config, HERE)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"stage": 3}, "stage cannot be 3: it must be 1 or 2"),
    ({"stage": "1"}, "stage cannot be '1': it must be 1 or 2"),
    ({"from_mels": True}, "from_mels is for stage 2 alone"),
    ({"from_mels": 1}, "from_mels cannot be 1: it must be true or false"),
    ({"stage": 2, "decoder_only": True}, "decoder_only is for stage 1 alone"),
    ({"stage": 1, "joint": True}, "joint is stage 2 on tokens: it goes neither with stage 1"),
    ({"joint": True, "from_mels": True}, "joint is stage 2 on tokens: .* nor with from_mels"),
    ({"joint": 1}, "joint cannot be 1: it must be true or false"),
    ({"stage": 2, "picture_weight": 1.0}, "picture_weight is for the joint stage alone"),
    ({"encoder_rate": 1.5}, "encoder_rate cannot be 1.5: it must be a number from 0 to 1"),
    ({"discriminator_kind": "magnitudes"}, "discriminator_kind is for stage 2 alone"),
    (
        {"stage": 2, "discriminator_kind": "phases"},
        "discriminator_kind cannot be 'phases': it must be waves or magnitudes",
    ),
    ({"narrowed": 1.5}, "narrowed cannot be 1.5: it must be a number from 0 to 1"),
    ({"stage": 2, "discriminators": -1}, "discriminators cannot be -1: it must be a whole number"),
    ({"batch": 0}, "batch cannot be 0: it must be a whole number of at least 1"),
    ({"batch": 2.5}, "batch cannot be 2.5: it must be a whole number of at least 1"),
    ({"batch": True}, "batch cannot be True: it must be a whole number of at least 1"),
    ({"columns": -1}, "columns cannot be -1: it must be a whole number of at least 1"),
    ({"discriminator_columns": 0}, "discriminator_columns cannot be 0: .* at least 1, or null"),
    ({"rate": 0.0}, "rate cannot be 0.0: it must be a number above 0"),
    ({"rate": float("nan")}, "rate cannot be nan: it must be a number above 0"),
    ({"rate": float("inf")}, "rate cannot be inf: it must be a number above 0"),
    ({"rate": 10**400}, "rate cannot be 1000"),
    ({"rate": None}, "rate cannot be None"),
    ({"warmup": 0}, "warmup cannot be 0: it must be a whole number of at least 1"),
    ({"average": 1.0}, "average cannot be 1.0: it must be a number from 0 to 1, and below 1"),
    ({"codebook_decay": -0.1}, "codebook_decay cannot be -0.1"),
    (
        {"betas": (0.9, 1.0)},
        "betas cannot be .*: it must be a pair, each a number from 0 to 1",
    ),
    ({"betas": (0.9,)}, "betas cannot be .*: it must be a pair"),
    ({"gain_db": "loud"}, "gain_db cannot be 'loud'"),
    ({"gain_db": (0.0, -3.0)}, "each a number of at most 0, the second not below the first"),
    ({"gain_db": (-3.0, 3.0)}, "each a number of at most 0, the second not below the first"),
    ({"class_weights": {"speech": "much"}}, "class_weights cannot be"),
    ({"class_weights": {"speech": -1.0}}, "each a number of at least 0"),
    ({"commitment": -1.0}, "commitment cannot be -1.0: it must be a number of at least 0"),
    ({"seed": -1}, "seed cannot be -1: it must be a whole number of at least 0"),
    ({"stft_weight": -1.0}, "stft_weight cannot be -1.0"),
    ({"codec": 3}, "codec cannot be 3: it must be the configuration of a codec"),
    (
        {"codec": replace(SMALL, mel=replace(SMALL.mel, sample_rate=16000))},
        "16000 Hz: its mel.sample_rate must be 44100",
    ),
    ({"colour": 1}, "no setting is called 'colour': there are stage, from_mels, joint, codec"),
]


@pytest.mark.parametrize(("settings", "words"), REFUSED)
def test_what_is_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=f"^training configuration: .*{words}") as caught:
        TrainingConfig.of(**settings)
    assert "\n" not in str(caught.value)


def test_every_setting_has_a_check() -> None:
    assert list(CHECKS) == [setting.name for setting in fields(TrainingConfig)]
    for name in CHECKS:
        with pytest.raises(InputError, match=f"{name} cannot be"):
            TrainingConfig.of(**{name: object()})


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
NAMES = st.sampled_from([setting.name for setting in fields(TrainingConfig)])


@given(st.dictionaries(NAMES, ANY_JSON, min_size=1, max_size=3))
def test_any_json_gives_a_configuration_or_one_kind_of_error(data: dict[str, object]) -> None:
    with suppress(MelcapError):
        config = TrainingConfig.from_json(json.dumps(data))
        assert TrainingConfig.from_json(config.to_json()) == config


def test_files_of_settings(tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    for content, words in (
        (b"{", "not JSON"),
        (b"[1]", "must be a JSON object"),
        (b"\xff", "cannot"),
    ):
        path.write_bytes(content)
        with pytest.raises(InputError, match=words) as caught:
            read_settings(path)
        assert str(caught.value).startswith(str(path))
    for content, words in (
        (b'{"batch": 0}', "batch cannot be 0"),
        (b'{"codec": {"x": 1}}', "not a melcap configuration"),
    ):
        path.write_bytes(content)
        with pytest.raises(InputError, match=words) as caught:
            read_settings(path)
        assert str(caught.value).startswith(f"{path}: ")
    path.write_bytes(b'{"mel": {"hop": 0}}')
    with pytest.raises(InputError, match=r"settings\.json: not a melcap configuration"):
        read_codec(str(path))
    path.unlink()
    with pytest.raises(InputError, match=r"settings\.json: cannot read the settings"):
        read_settings(path)
    with pytest.raises(InputError, match=r"neither such a file nor a codec of that name, .*lite"):
        read_codec(str(path))
    path.write_text('{"stage": 2, "betas": [0.5, 0.5]}')
    assert TrainingConfig.of(**read_settings(path)).betas == (0.5, 0.5)


OTHERS: dict[str, Any] = {
    "joint": True,
    "picture_weight": 1.0,
    "discriminator_kind": "magnitudes",
    "from_mels": True,
    "constant_phase": True,
    "decoder_only": True,
    "codec": SMALL,
    "seed": 1,
    "batch": 9,
    "columns": 5,
    "gain_db": (-6.0, 0.0),
    "class_weights": {"speech": 2.0},
    "narrowed": 0.5,
    "muon": False,
    "loudness": 0.4,
    "complex_weight": 1.0,
    "phase_weight": 1.0,
    "discriminators": 16,
    "discriminator_columns": 3,
    "betas": (0.5, 0.5),
}


NUMBERS = [f.name for f in fields(TrainingConfig) if type(f.default) in (int, float)]


@pytest.mark.parametrize("name", NUMBERS)
def test_no_number_may_be_negative(name: str) -> None:
    assert len(NUMBERS) > 20
    settings = {"stage": 2, name: type(getattr(TrainingConfig(), name))(-1)}
    with pytest.raises(InputError, match=rf"{name} cannot be -1"):
        TrainingConfig.of(**settings)


@pytest.mark.parametrize("name", [setting.name for setting in fields(TrainingConfig)][1:])
def test_what_a_run_that_goes_on_may_change(name: str) -> None:
    stage = 1 if name == "decoder_only" else 2
    before = TrainingConfig.of(stage=stage, joint=name == "picture_weight", discriminators=8)
    value = OTHERS[name] if name in OTHERS else 2 * getattr(before, name) * 0.4
    if isinstance(getattr(before, name), int) and name not in OTHERS:
        value = getattr(before, name) + 1
    now = replace(before, **{name: value})
    assert now != before
    if name in MAY_CHANGE:
        now.check_resumes(before, HERE)
        return
    with pytest.raises(InputError, match=rf"^runs/stage2: this run has {name}\b.*another"):
        now.check_resumes(before, HERE)


def test_discriminators_may_join_and_not_leave() -> None:
    without, joined = (TrainingConfig.of(stage=2, discriminators=width) for width in (0, 8))
    joined.check_resumes(without, HERE)
    others = replace(joined, discriminator_kind="magnitudes")
    others.check_resumes(without, HERE)
    with pytest.raises(InputError, match='discriminator_kind "waves", not "magnitudes"'):
        others.check_resumes(joined, HERE)
    with pytest.raises(InputError, match="this run has discriminators 8, not 0"):
        without.check_resumes(joined, HERE)


def test_a_clash_inside_the_codec_is_named() -> None:
    lite = TrainingConfig.of()
    finer = replace(lite, codec=replace(lite.codec, mel=replace(lite.codec.mel, n_mels=104)))
    with pytest.raises(InputError, match=r"this run has codec\.mel\.n_mels 96, not 104"):
        finer.check_resumes(lite, HERE)


def test_configurations_do_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        TrainingConfig().rate = 3  # type: ignore[misc]
