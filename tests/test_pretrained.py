"""Weights files are loaded as they were saved, named by their hash, or refused with a reason."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import melcap
from melcap import pretrained
from melcap.codec import Codec
from melcap.errors import InputError, WeightsError
from melcap.pretrained import require_file, save
from melcap.streaming import StreamEncoder
from tests.helpers import SMALL, draw_weights, noise


def test_save_and_load(tmp_path: Path) -> None:
    made = draw_weights(Codec(SMALL), seed=1)
    made.silence += 1  # as if it were that of other weights
    path = tmp_path / "some.safetensors"
    digest = save(made, path)
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert os.listdir(tmp_path) == [path.name]
    codec = melcap.load(path)
    assert codec.config == SMALL
    assert codec.model == f"small-{digest[:16]}"
    require_file(codec)
    assert not codec.training
    assert not any(parameter.requires_grad for parameter in codec.parameters())
    for name, value in made.state_dict().items():
        found = codec.state_dict()[name]
        if value.is_floating_point():
            assert found.dtype == torch.float32
            assert torch.equal(found, value.half().float()), name
    # silence is what the rounded weights make of it
    quiet = codec.encode(torch.zeros(1, 5000), 44100).tokens
    assert torch.equal(quiet[0, :, 0], codec.silence)
    wave = noise(1, 5000)
    again = melcap.load(str(path))
    assert torch.equal(again.encode(wave, 44100).tokens, codec.encode(wave, 44100).tokens)
    assert save(codec, path) == digest, "saving what was loaded changes nothing"


def test_saving_leaves_the_codec_alone(tmp_path: Path) -> None:
    made = draw_weights(Codec(SMALL), seed=2).double().requires_grad_(True)
    before = {name: value.clone() for name, value in made.state_dict().items()}
    save(made, tmp_path / "some.safetensors")
    for name, value in made.state_dict().items():
        assert value.dtype == before[name].dtype
        assert torch.equal(value, before[name])
    assert made.model == "untrained"


def test_the_name_follows_weights_and_configuration(tmp_path: Path, small_weights: Path) -> None:
    codec = melcap.load(small_weights)
    other = melcap.load(small_weights)
    with torch.no_grad():
        other.codebook.vectors[7, 3] += 0.5
    save(other, tmp_path / "weights.safetensors")
    config = replace(SMALL, mel=replace(SMALL.mel, mean=SMALL.mel.mean + 0.1))
    renamed = Codec(config)
    renamed.load_state_dict(codec.state_dict())
    save(renamed, tmp_path / "config.safetensors")
    models = {
        codec.model,
        melcap.load(tmp_path / "weights.safetensors").model,
        melcap.load(tmp_path / "config.safetensors").model,
    }
    assert len(models) == 3


def test_a_weights_file_has_the_usual_permissions(tmp_path: Path) -> None:
    """Weights in a package must be readable by those who did not install it."""
    save(draw_weights(Codec(SMALL)), tmp_path / "weights.safetensors")
    (tmp_path / "other").touch()
    modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert len(modes) == 1


def test_an_existing_file_is_replaced_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "some.safetensors"
    path.write_bytes(b"something else")

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", full)
        with pytest.raises(WeightsError, match=f"{path}: cannot write.*No space left"):
            save(draw_weights(Codec(SMALL)), path)
    assert path.read_bytes() == b"something else"
    assert os.listdir(tmp_path) == [path.name]
    save(draw_weights(Codec(SMALL)), path)
    melcap.load(path)


@pytest.mark.parametrize("where", ["missing/some.safetensors", "."])
def test_places_that_cannot_be_written(tmp_path: Path, where: str) -> None:
    with pytest.raises(WeightsError, match="cannot write the weights"):
        save(draw_weights(Codec(SMALL)), tmp_path / where)
    assert os.listdir(tmp_path) == []


def test_an_untrained_codec_has_no_file() -> None:
    with pytest.raises(WeightsError, match=r"no weights file.*save"):
        require_file(Codec(SMALL))


def foreign_files(good: Path) -> dict[str, bytes]:
    """Return the bytes of files that are not weights files, by what is wrong with them."""
    data = good.read_bytes()
    state = load_file(good)
    with safe_open(good, framework="pt") as file:
        config = file.metadata()["config"]

    def packed(state: dict[str, torch.Tensor], **metadata: str) -> bytes:
        path = good.with_name("packed")
        save_file(state, path, metadata=metadata)
        try:
            return path.read_bytes()
        finally:
            path.unlink()

    def edited(section: str, **values: object) -> str:
        changed = json.loads(config)
        changed[section].update(values)
        return json.dumps(changed)

    name = next(name for name, value in state.items() if value.ndim > 1)
    wrong_shape = {**state, name: state[name].flatten()}
    silence = state["silence"]
    fewer = {key: value for key, value in state.items() if key != name}
    return {
        "empty": b"",
        "text": b"these are not weights\n",
        "zeros": bytes(1000),
        "half": data[: len(data) // 2],
        "header alone": data[:500],
        "one byte short": data[:-1],
        "one byte more": data + b"\0",
        "a header of terabytes": (2**50).to_bytes(8, "little") + data[8:],
        "no configuration": packed(state),
        "no JSON": packed(state, config="{"),
        "another JSON": packed(state, config="[1, 2]"),
        "no mel": packed(state, config=json.dumps({"name": "x"})),
        "a field too many": packed(state, config=edited("mel", colour=3)),
        "a list for a section": packed(state, config=edited("mel").replace("{", "[", 1)),
        "a number for a section": packed(
            state, config=json.dumps({**json.loads(config), "tokenizer": 3})
        ),
        "a stride of zero": packed(state, config=edited("vocoder", strides=[0])),
        "a stride of text": packed(state, config=edited("vocoder", strides=["4"])),
        "negative channels": packed(state, config=edited("tokenizer", channels=[-6, 8, 12])),
        "no hop": packed(state, config=edited("mel", hop=0)),
        "a fraction of a bin": packed(state, config=edited("mel", n_fft=512.5)),
        "another shape": packed(wrong_shape, config=config),
        "a tensor too few": packed(fewer, config=config),
        "a tensor too many": packed({**state, "more": torch.zeros(3)}, config=config),
        "another configuration": packed(state, config=edited("tokenizer", codebook_dim=9)),
        "a billion steps": packed(state, config=edited("vocoder", griffin_lim_steps=10**9)),
        "a million blocks": packed(state, config=edited("vocoder", blocks=10**6)),
        "a width of terabytes": packed(state, config=edited("vocoder", dim=8192, hidden=32768)),
        "a mean of text": packed(state, config=edited("mel", mean="x")),
        "a mean that is NaN": packed(state, config=edited("mel", mean=float("nan"))),
        "JSON 5,000 deep": packed(state, config="[" * 5000 + "]" * 5000),
        "a number of 5,000 digits": packed(
            state, config=config.replace('"hop": 128', '"hop": ' + "9" * 5000)
        ),
        "a name of two lines": packed(state, config=config.replace('"small"', '"a\\nb"')),
        "silence beyond the codebook": packed({**state, "silence": silence + 300}, config=config),
        "silence below zero": packed({**state, "silence": silence - 300}, config=config),
        "silence of another dtype": packed({**state, "silence": silence.long()}, config=config),
        "silence in fractions": packed({**state, "silence": silence.float()}, config=config),
        "weights of integers": packed({**state, name: state[name].int()}, config=config),
        "NaN": packed({**state, name: state[name] * torch.nan}, config=config),
    }


@pytest.mark.slow
def test_foreign_and_damaged_files(tmp_path: Path, small_weights: Path) -> None:
    good = tmp_path / "good.safetensors"
    good.write_bytes(small_weights.read_bytes())
    loaded: dict[str, Codec] = {}  # pytest shows which
    for name, data in foreign_files(good).items():
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(data)
        with pytest.raises(WeightsError) as caught:
            loaded[name] = melcap.load(path)
        assert "\n" not in str(caught.value), name
        assert str(path) in str(caught.value), name
    melcap.load(good)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.bfloat16])
def test_weights_that_are_not_finite_are_refused_by_name(
    value: float, dtype: torch.dtype, small_weights: Path, tmp_path: Path
) -> None:
    with safe_open(small_weights, framework="pt") as file:
        metadata = file.metadata()
    path = tmp_path / "broken.safetensors"
    for name in ("encoder.2.conv.weight", "codebook.vectors", "vocoder.0.norm.bias"):
        state = load_file(small_weights)
        state[name] = state[name].to(dtype)
        state[name].view(-1)[-1] = value
        save_file(state, path, metadata=metadata)
        with pytest.raises(WeightsError, match=f"{path}.*: {name} has NaN or infinite"):
            melcap.load(path)


@pytest.mark.parametrize("value", [torch.nan, 1e6])  # 1e6 is beyond float16
def test_weights_that_would_not_be_finite_are_not_written(value: float, tmp_path: Path) -> None:
    made = draw_weights(Codec(SMALL))
    with torch.no_grad():
        made.codebook.vectors[7, 3] = value
    with pytest.raises(WeightsError, match=r"codebook\.vectors has NaN or infinite"):
        save(made, tmp_path / "some.safetensors")
    assert os.listdir(tmp_path) == []


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", Path("/dev/zero"), Path("/dev/null")):
        with pytest.raises(WeightsError, match=f"{path}: .*not a regular file"):
            melcap.load(path)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.complex64])
def test_narrower_dtypes_are_refused(dtype: torch.dtype, small_weights: Path) -> None:
    codec = melcap.load(small_weights)
    for change in (
        lambda: codec.to(dtype),
        lambda: codec.to("cpu", dtype),
        lambda: codec.type(dtype),
    ):
        with pytest.raises(InputError, match=f"float32.*{str(dtype).removeprefix('torch.')}"):
            change()
    assert {value.dtype for value in codec.parameters()} == {torch.float32}
    codec.decode(codec.encode(noise(1, 5000), 44100))
    codec.to(torch.float32).float()


def test_a_codec_in_double_precision_decodes(small_weights: Path) -> None:
    codec = melcap.load(small_weights)
    codes = codec.encode(noise(1, 5000), 44100)
    single = codec.decode(codes)
    codec.double()
    double = codec.decode(codes)
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), single, atol=1e-4, rtol=0)
    for refused in (lambda: codec.encode(noise(1, 5000), 44100), lambda: StreamEncoder(codec)):
        with pytest.raises(InputError, match=r"encoding is defined in float32.*float\(\)"):
            refused()
    assert torch.equal(codec.float().encode(noise(1, 5000), 44100).tokens, codes.tokens)


@pytest.mark.parametrize("where", ["missing.safetensors", "", "missing/x.safetensors"])
def test_files_that_are_not_there(tmp_path: Path, where: str) -> None:
    with pytest.raises(WeightsError, match="cannot read the weights"):
        melcap.load(tmp_path / where)


def test_pickles_are_never_run(tmp_path: Path) -> None:
    """No pickle is run, also none that torch.save wrote."""

    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "harm"),)

    for name, write in [
        ("plain", lambda path: path.write_bytes(pickle.dumps(Bomb()))),
        ("torch", lambda path: torch.save({"bomb": Bomb()}, path)),
    ]:
        path = tmp_path / f"{name}.safetensors"
        write(path)
        with pytest.raises(WeightsError, match="not a melcap weights file"):
            melcap.load(path)
    assert not (tmp_path / "harm").exists()


def test_the_default_weights(lite: Codec) -> None:
    """The weights that ship have their name, and their hash in the file beside them."""
    folder = Path(pretrained.__file__).parent / "weights"
    path = folder / pretrained.DEFAULT
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert path.with_suffix(".sha256").read_text() == f"{digest}  {path.name}\n"
    assert lite.model == f"melcap-lite-{digest[:16]}"
    assert lite.config.bits_per_second == pytest.approx(3359.2, abs=0.1)


def test_damaged_default_weights(
    tmp_path: Path, small_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretrained.resources, "files", lambda package: tmp_path)
    (tmp_path / "weights").mkdir()
    path = tmp_path / "weights" / pretrained.DEFAULT
    data = small_weights.read_bytes()
    path.write_bytes(data)
    with pytest.raises(WeightsError, match="incomplete; install melcap again"):
        melcap.load()
    path.with_suffix(".sha256").write_text("")
    with pytest.raises(WeightsError, match="incomplete"):
        melcap.load()
    path.with_suffix(".sha256").write_text(hashlib.sha256(data).hexdigest() + "  name\n")
    assert melcap.load().config == SMALL
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(WeightsError, match="damaged; install melcap again"):
        melcap.load()
