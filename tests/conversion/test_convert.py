"""Published checkpoints become weights files, and what cannot be converted is refused by name."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

import melcap
from melcap import audio
from melcap.base_codec import BaseCodec
from melcap.cli.commands import app
from melcap.conversion import activation, convert
from melcap.conversion.activation import chosen, clip_error
from melcap.errors import InputError, MelcapError, OutputExistsError, WeightsError
from melcap.io.weights_file import sha256_of
from melcap.model.base.published import MEL_FILTERS, WINDOWS
from tests.model.base.published import FULL, TINY, Case, arrays, codec_of, shapes, stages

SETTINGS = """
model:
  init_args:
    feature_extractor:
      init_args: {sample_rate: 44100, n_fft: 1024, hop_length: 256, n_mels: 96, padding: center,
                  vae_ckpt_path: /somewhere/cp/vae_00620000}
    head:
      init_args: {dim: 512, n_fft: 1024, hop_length: 256, padding: center}
"""

State = dict[str, Any]


def tables() -> dict[str, Tensor]:
    """Return the windows and the mel filters, as torchaudio computes them: in float32."""
    edges = 700 * (10 ** (torch.linspace(0, 2595 * np.log10(1 + 22050 / 700), 98) / 2595) - 1)
    bins = torch.linspace(0, 22050, 513)[:, None]
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    window = torch.hann_window(1024)
    return {**dict.fromkeys(WINDOWS, window), MEL_FILTERS: rising.minimum(falling).clamp(min=0)}


def write(
    folder: Path, case: Case, change: Callable[[State, State], object] = lambda *_: None
) -> list[str]:
    """Write both files of a case, after a change of their tensors, and return the options."""
    stage1, stage2 = (dict(stage) for stage in stages(case.layout))
    stage2 |= tables()
    stage2["multiperioddisc.x"] = torch.zeros(3)
    change(stage1, stage2)
    torch.save({"encoder": stage1, "steps": 5, "epoch": 1}, folder / "vae_00620000")
    torch.save(
        {"state_dict": stage2, "optimizer_states": [{"lr": 0.1}], "epoch": 2}, folder / "last.ckpt"
    )
    return ["--stage1", str(folder / "vae_00620000"), "--stage2", str(folder / "last.ckpt")]


@pytest.mark.parametrize(
    "case", [*TINY, pytest.param(FULL, marks=pytest.mark.slow)], ids=lambda case: case.file
)
def test_from_checkpoints_to_audio(case: Case, tmp_path: Path) -> None:
    """The converted weights give the tokens and the samples of the published code."""
    expected = arrays(case)
    words = ["convert", *write(tmp_path, case), "--activation", case.activation]
    done = CliRunner().invoke(app, [*words, "-o", str(tmp_path / "base.safetensors"), "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    weights = tmp_path / "base.safetensors"
    assert told["sha256"] == sha256_of(weights)
    assert told["activation"] == case.activation
    codec = melcap.load(weights)
    assert isinstance(codec, BaseCodec)
    assert codec.model == told["model"]
    codes = codec.encode(expected["wave"], 44100)
    assert np.array_equal(codes.tokens.numpy(), expected["tokens"])
    decoded = codec.ln_mel_of(codes.tokens[None])[0].numpy()
    assert np.abs(decoded - expected["recon"]).max() <= 1e-3
    samples = codec.decode(codes).numpy()
    common = min(len(samples), len(expected["audio"]))
    error = samples[:common] - expected["audio"][:common].clip(-1, 1)
    assert np.abs(error).max() <= 1e-5
    card = (tmp_path / "base.md").read_text()
    assert card.startswith("---\n")
    for part in ("vae_00620000", sha256_of(tmp_path / "last.ckpt"), told["sha256"], "2510.01903"):
        assert part in card


def refused(folder: Path, *change: Callable[[State, State], object], **options: Any) -> str:
    """Return the error of a conversion, which must leave no file behind."""
    write(folder, TINY[0], *change)
    before = sorted(folder.iterdir())
    with pytest.raises(MelcapError) as error:
        convert(
            folder / "vae_00620000",
            folder / "last.ckpt",
            folder / "base.safetensors",
            **{"activation": "tanh", **options},
        )
    assert sorted(folder.iterdir()) == before
    return str(error.value)


def dropped(stage: int, start: str) -> Callable[[State, State], object]:
    def change(*states: State) -> None:
        for name in [name for name in states[stage] if name.startswith(start)]:
            del states[stage][name]

    return change


def put(stage: int, name: str, value: Tensor) -> Callable[[State, State], object]:
    return lambda *states: states[stage].__setitem__(name, value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dropped(0, "quantizer"), "has no codebook"),
        (dropped(1, "feature_extractor.mel_decoder.1"), "has no mel decoder"),
        (dropped(0, "encoder.conv_in.weight"), "lack the tensor 'encoder.conv_in.weight'"),
        (dropped(0, "encoder.mid.attn_1.q.bias"), "lack tensors .* encoder.mid.attn_1.q.bias"),
        (dropped(1, "head.out.bias"), "lack tensors .* vocoder.out.bias"),
        (put(0, "encoder.extra", torch.zeros(1)), "have unknown tensors .* encoder.extra"),
        (put(0, "quantizer.ema", torch.zeros(1)), "have unknown tensors .* quantizer.ema"),
        (put(1, "head.other", torch.zeros(1)), "have unknown tensors .* vocoder.other"),
        (put(0, "quant_conv.bias", torch.zeros(5)), "have misshapen tensors .*quant_conv.bias"),
        (
            put(0, "encoder.conv_out.bias", torch.full((32,), torch.nan)),
            "vae_00620000: cannot be converted: encoder.conv_out.bias has NaN",
        ),
        (put(0, "encoder.conv_in.weight", torch.zeros(0, 4, 3, 3)), "have other shapes"),
        (put(0, "encoder.conv_in.weight", torch.zeros(5, 4, 3, 3)), "multiple of 32, not 5"),
        (put(1, WINDOWS[0], torch.hamming_window(1024)), "spectrogram.window is not that of"),
        (put(1, MEL_FILTERS, torch.zeros(513, 96)), "mel_scale.fb is not that of"),
        (put(1, WINDOWS[1], torch.hann_window(2048)), "head.istft.window is not that of"),
    ],
)
def test_tensors_that_do_not_fit(
    tmp_path: Path, change: Callable[[State, State], object], message: str
) -> None:
    assert re.search(message, refused(tmp_path, change))


class Hostile:
    """An object whose pickle runs a command when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_a_pickle_that_runs_code(tmp_path: Path) -> None:
    def change(stage1: State, _: State) -> None:
        stage1["encoder.x"] = Hostile(tmp_path / "made")

    message = refused(tmp_path, change)
    assert "vae_00620000: refused" in message
    assert "could run code" in message
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not a zip", b"\x80\x02garbage", b"text"])
def test_files_that_are_no_checkpoints(tmp_path: Path, content: bytes) -> None:
    write(tmp_path, TINY[0])
    (tmp_path / "bad").write_bytes(content)
    for stage1, stage2 in (("bad", "last.ckpt"), ("vae_00620000", "bad")):
        with pytest.raises(WeightsError, match=r"bad: (is damaged|refused)"):
            convert(tmp_path / stage1, tmp_path / stage2, tmp_path / "base.safetensors")


def test_files_in_each_others_place(tmp_path: Path) -> None:
    write(tmp_path, TINY[0])
    first, second, target = (tmp_path / n for n in ("vae_00620000", "last.ckpt", "x.safetensors"))
    with pytest.raises(WeightsError, match="no entry 'encoder'; it is not a file of stage 1"):
        convert(second, first, target)
    with pytest.raises(WeightsError, match="no entry 'state_dict'; it is not a file of stage 2"):
        convert(first, first, target)
    with pytest.raises(WeightsError, match="cannot be read"):
        convert(tmp_path / "missing", second, target)
    with pytest.raises(InputError, match=r"must end in \.safetensors"):
        convert(first, second, tmp_path / "x.bin")
    for existing in (target, tmp_path / "x.md"):
        existing.write_text("kept")
        with pytest.raises(OutputExistsError, match=existing.name):
            convert(first, second, target)
        assert existing.read_text() == "kept"
        existing.unlink()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("vae_00620000", "vae_00430000", "trained on the tokenizer vae_00430000"),
        (
            "n_mels: 96, padding: center",
            "n_mels: 96, padding: same",
            "feature_extractor has padding",
        ),
        ("sample_rate: 44100", "sample_rate: 24000", "has sample_rate 24000"),
        ("{dim: 512, n_fft: 1024", "{dim: 512, n_fft: 2048", "head has n_fft 2048"),
        ("hop_length: 256, n_mels", "hop_length: 512, n_mels", "has hop_length 512"),
        ("model:", "other:", "is not the config.yaml"),
        ("model:", "model: [", "is not the config.yaml"),
    ],
)
def test_settings_that_do_not_fit(tmp_path: Path, old: str, new: str, message: str) -> None:
    pytest.importorskip("yaml")
    path = tmp_path / "config.yaml"
    assert old in SETTINGS
    path.write_text(SETTINGS.replace(old, new, 1))
    assert message in refused(tmp_path, config=path)


def test_settings_that_fit(tmp_path: Path) -> None:
    pytest.importorskip("yaml")
    path = tmp_path / "config.yaml"
    path.write_text(SETTINGS)
    write(tmp_path, TINY[0])
    files = [tmp_path / name for name in ("vae_00620000", "last.ckpt", "base.safetensors")]
    convert(*files, config=path, activation="tanh")
    path.write_text(SETTINGS.replace("vae_00620000", "other"))
    convert(*files, config=path, activation="tanh", force=True)


def test_random_weights_have_no_clear_activation(tmp_path: Path) -> None:
    assert "Say --activation tanh" in refused(tmp_path, activation=None)


@pytest.mark.parametrize(
    ("tanh", "silu", "expected"),
    [(0.4, 0.6, "tanh"), (2.0, 0.5, "silu"), (0.5, 0.6, None), (2, 9, None)],
)
def test_the_activation_is_the_clearly_better_one(
    tanh: float, silu: float, expected: str | None
) -> None:
    if expected:
        assert chosen({"tanh": tanh, "silu": silu}) == expected
    else:
        with pytest.raises(WeightsError, match="cannot be told"):
            chosen({"tanh": tanh, "silu": silu})


def test_the_better_activation_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def error(codec: BaseCodec) -> float:
        return {"silu": 0.4, "tanh": 3.0}[codec.config.tokenizer.activation]

    monkeypatch.setattr(activation, "clip_error", error)
    write(tmp_path, TINY[0])
    files = [tmp_path / name for name in ("vae_00620000", "last.ckpt", "base.safetensors")]
    converted = convert(*files)
    assert (converted.activation, converted.errors) == ("silu", {"tanh": 3.0, "silu": 0.4})
    codec = melcap.load(files[2])
    assert isinstance(codec, BaseCodec)
    assert codec.config.tokenizer.activation == "silu"


def test_the_error_is_that_of_the_decoded_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    codec = codec_of(TINY[0])
    assert clip_error(codec) > 1
    monkeypatch.setattr(BaseCodec, "decode", lambda self, codes: self.clip)
    source = Path(melcap.__file__).parent / "conversion" / "clip.flac"
    codec.clip = torch.from_numpy(audio.read(source)[0][0])
    assert clip_error(codec) == 0


def test_the_layout_has_all_that_is_read() -> None:
    """The tests leave the tables out of the layout, and write them themselves."""
    assert len(shapes("tiny-tanh")[0]) == 251
