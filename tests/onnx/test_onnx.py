"""Compare the exported graphs in ONNX Runtime with the codec itself.

An export takes half a minute, so there is one, of a small codec at half the rate of tokens with one
residual block in each network. tests/web/test_graphs.py does it for the weights that ship.
"""

from __future__ import annotations

import importlib
import json
import runpy
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from typer.testing import CliRunner

import melcap
from melcap.cli.commands import app
from melcap.codec import Codec
from melcap.codes import Codes
from melcap.errors import InputError, OutputExistsError
from melcap.model.griffin_lim import FirstGuess
from melcap.onnx.graphs import Part, decoder_parts
from tests.helpers import HALF, SMALL, count_ties, draw_weights, examples, noise, save_drawn, waves

onnx = pytest.importorskip("onnx")
soundfile = pytest.importorskip("soundfile")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

from melcap.onnx import export  # noqa: E402
from melcap.onnx.export import facts  # noqa: E402

pytestmark = pytest.mark.slow

ONE_BLOCK = replace(HALF.tokenizer, encoder_blocks=(0, 0, 1, 0), decoder_blocks=(0, 0, 1, 0))
EXPORTED = replace(HALF, tokenizer=ONE_BLOCK)
UNIT = EXPORTED.column_samples
EXAMPLE = Path(__file__).parents[2] / "examples" / "onnx_codec.py"

# ---- the graphs


@pytest.fixture(scope="module")
def small_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_drawn(EXPORTED, tmp_path_factory.mktemp("half") / "half.safetensors")


@pytest.fixture(scope="module")
def codec(small_weights: Path) -> Codec:
    return melcap.load(small_weights)


@pytest.fixture(scope="module")
def graphs(small_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("onnx") / "a" / "graphs"
    command = ["export", str(small_weights), "--onnx", str(folder), "--json"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    files = {"encoder": "encoder.onnx", "decoder": "decoder.onnx", "facts": "facts.json"}
    paths = {name: folder / file for name, file in files.items()}
    assert json.loads(result.stdout) == {name: str(path) for name, path in paths.items()}
    assert sorted(folder.iterdir()) == sorted(paths.values())
    return folder


@pytest.fixture(scope="module")
def example() -> SimpleNamespace:
    return SimpleNamespace(**runpy.run_path(str(EXAMPLE)))


def test_the_files(codec: Codec, graphs: Path) -> None:
    """They are valid, have standard operators and named axes, and say what they are."""
    shapes = {
        "encoder": (("wave", ["batch", "samples"]), ("tokens", ["batch", 3, "columns"])),
        "decoder": (("tokens", ["batch", 3, "columns"]), ("wave", ["batch", "samples"])),
    }
    for name, expected in shapes.items():
        model = onnx.load(graphs / f"{name}.onnx")
        onnx.checker.check_model(model, full_check=True)
        assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 18)]
        for value, (label, axes) in zip(
            (*model.graph.input, *model.graph.output), expected, strict=True
        ):
            dims = value.type.tensor_type.shape.dim
            assert value.name == label
            assert [dim.dim_param or dim.dim_value for dim in dims] == axes
        described = {entry.key: entry.value for entry in model.metadata_props}["melcap"]
        told = json.loads(described)
        assert told == json.loads((graphs / "facts.json").read_text()) == facts(codec)
        assert told["model"] == codec.model
        assert told["silence"] == codec.silence.tolist()
        assert (told["sample_rate"], told["column_samples"], told["rows"]) == (44100, UNIT, 3)
        assert not any(node.metadata_props or node.doc_string for node in model.graph.node)
        assert str(Path(melcap.__file__).parent).encode() not in model.SerializeToString()


@given(waves(longest=9 * UNIT, batch=4), st.integers(1, 5))
@settings(max_examples=examples(40))
def test_encoding(
    codec: Codec, graphs: Path, example: SimpleNamespace, wave: Tensor, piece: int
) -> None:
    """Any clip, in one piece and in several, gets the codec's tokens, but for ties."""
    encoder = example.Graph(graphs / "encoder.onnx", threads=1)
    expected = codec.encode(wave, 44100).tokens
    for found in (encoder.run(wave.numpy()), example.encode(encoder, wave.numpy(), piece)):
        for row, clip in enumerate(wave):
            count_ties(codec, clip.clamp(-1, 1), expected[row], torch.from_numpy(found[row]))


@given(st.integers(1, 3), st.integers(1, 25), st.integers(1, 9), st.integers(0, 2**32 - 1))
@settings(max_examples=examples(20))
def test_decoding(
    codec: Codec,
    graphs: Path,
    example: SimpleNamespace,
    batch: int,
    columns: int,
    piece: int,
    seed: int,
) -> None:
    """Any tokens, in one piece and in several, give the codec's samples within 1e-4."""
    random = np.random.default_rng(seed)
    tokens = random.integers(0, 300, (batch, 3, columns), dtype=np.int32)
    samples = columns * UNIT
    codes = Codes(
        torch.from_numpy(tokens),
        (columns,) * batch,
        (samples,) * batch,
        44100,
        codec.tokenizer_id,
    )
    expected = codec.decode(codes).numpy()
    decoder = example.Graph(graphs / "decoder.onnx", threads=1)
    for found in (decoder.run(tokens), example.decode(decoder, tokens, piece)):
        assert found.shape == expected.shape
        assert found.dtype == np.float32
        assert np.abs(found - expected).max() <= 1e-4
    assert np.abs(expected).max() > 1e-2


def test_columns_beyond_the_context_have_no_effect(graphs: Path, example: SimpleNamespace) -> None:
    """It changes no bit of the samples; columns within the context do."""
    decoder = example.Graph(graphs / "decoder.onnx", threads=1)
    before, after = decoder.facts["decoder_context"]
    middle = slice(20 * UNIT, 21 * UNIT)
    tokens = np.random.default_rng(0).integers(0, 300, (1, 3, 41), dtype=np.int32)
    right = decoder.run(tokens)[:, middle]
    for column in range(41):
        other = tokens.copy()
        other[..., column] = (other[..., column] + 150) % 300
        same = np.array_equal(decoder.run(other)[:, middle], right)
        assert same == (not 20 - before <= column <= 20 + after), column


def test_a_padded_batch(codec: Codec, graphs: Path, example: SimpleNamespace) -> None:
    """A shorter clip, padded with zeros and columns of silence, comes out as when alone."""
    encoder = example.Graph(graphs / "encoder.onnx", threads=1)
    decoder = example.Graph(graphs / "decoder.onnx", threads=1)
    clip = noise(1, 10000).numpy()
    batch = np.zeros((2, 40000), np.float32)
    batch[0], batch[1, :10000] = noise(40000, seed=1).numpy(), clip
    alone = encoder.run(clip)
    tokens = encoder.run(batch)
    assert np.array_equal(tokens[1, :, :5], alone[0])
    tokens[1, :, 5:] = np.array(encoder.facts["silence"])[:, None]
    assert np.abs(decoder.run(tokens)[1, : 5 * UNIT] - decoder.run(alone)[0]).max() <= 1e-4


def test_loud_output_is_clipped(small_weights: Path) -> None:
    """The modules before the export clip loud magnitudes of any tokens."""
    loud = melcap.load(small_weights)
    (guess,) = (stage for stage in loud.vocoder if isinstance(stage, FirstGuess))
    guess.magnitude.bias += 6
    tokens = torch.arange(90, dtype=torch.int32).view(1, 3, 30)
    codes = Codes(tokens, (30,), (30 * UNIT,), 44100, loud.tokenizer_id)
    heard = run_parts(decoder_parts(loud), tokens)
    assert heard.abs().max() == 1
    torch.testing.assert_close(heard, loud.decode(codes), rtol=0, atol=1e-3)


def test_a_vocoder_without_griffin_lim_steps() -> None:
    """The graph is then one part; it is run before the export."""
    vocoder = replace(SMALL.vocoder, griffin_lim_steps=0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        codec = draw_weights(Codec(replace(SMALL, vocoder=vocoder)))
    tokens = torch.arange(90, dtype=torch.int32).view(1, 3, 30)
    codes = Codes(tokens, (30,), (30 * 1024,), 44100, codec.tokenizer_id)
    found = run_parts(decoder_parts(codec), tokens)
    torch.testing.assert_close(found, codec.decode(codes), rtol=0, atol=1e-4)


def run_parts(parts: list[Part], x: Tensor) -> Tensor:
    """Run the modules that are exported, one after the other, in PyTorch."""
    state: tuple[Tensor, ...] = (x,)
    with torch.no_grad():
        for module, times in parts:
            for _ in range(times):
                state = module(*state)
    return state[0]


def test_loud_input_is_clipped(codec: Codec, graphs: Path, example: SimpleNamespace) -> None:
    encoder = example.Graph(graphs / "encoder.onnx", threads=1)
    loud = noise(1, 9 * UNIT, amplitude=3).numpy()
    assert np.array_equal(encoder.run(loud), encoder.run(loud.clip(-1, 1)))


def test_the_format_of_onnx_runtime(
    codec: Codec,
    graphs: Path,
    tmp_path: Path,
    example: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A decoder alone, of the graph that was exported before."""
    module = importlib.import_module("melcap.onnx.export")
    model = onnx.load(graphs / "decoder.onnx")
    monkeypatch.setattr(module, "_model", lambda *_: model)
    paths = export(codec, tmp_path / "ort", decoder_only=True, ort=True)
    assert sorted(path.name for path in (tmp_path / "ort").iterdir()) == [
        "decoder.ort",
        "facts.json",
    ]
    assert paths["facts"].read_bytes() == (graphs / "facts.json").read_bytes()
    decoder, expected = (
        example.Graph(path, threads=1) for path in (paths["decoder"], graphs / "decoder.onnx")
    )
    assert decoder.facts == facts(codec)
    tokens = np.random.default_rng(0).integers(0, 300, (2, 3, 30), dtype=np.int32)
    assert np.abs(decoder.run(tokens) - expected.run(tokens)).max() <= 1e-4
    with pytest.raises(OutputExistsError, match=r"decoder\.ort exists"):
        export(codec, tmp_path / "ort", ort=True)


def test_a_full_disk(graphs: Path) -> None:
    module = importlib.import_module("melcap.onnx.ort_format")
    model = onnx.load(graphs / "decoder.onnx")
    with pytest.raises(melcap.errors.MelcapError, match=r"/dev: ONNX Runtime cannot write a graph"):
        module.write_ort(model, Path("/dev/full"))


def test_the_example(
    graphs: Path, tmp_path: Path, example: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes two channels and refuses audio of another rate in a sentence."""
    samples = noise(7001, 2).numpy()
    heard = tmp_path / "heard.wav"
    for rate in (44100, 48000):
        source = tmp_path / f"{rate}.wav"
        soundfile.write(source, samples, rate)
        monkeypatch.setattr(sys, "argv", ["onnx_codec.py", str(graphs), str(source), str(heard)])
        if rate == 44100:
            example.main()
            assert soundfile.read(heard)[0].shape == (7001, 2)
        else:
            with pytest.raises(SystemExit, match="has 48000 Hz: resample it to 44100"):
                example.main()


def test_switches_that_differ_do_not_stop_the_exporter() -> None:
    """The process may have set the precision of cuDNN's convolutions alone."""
    module = importlib.import_module("melcap.onnx.export")
    torch.backends.cudnn.allow_tf32 = True  # as in a fresh process
    torch.backends.cudnn.conv.fp32_precision = "ieee"
    try:
        with pytest.raises(RuntimeError, match="different TF32 flags"):
            assert torch.backends.cudnn.allow_tf32
        with module._plain_process():
            model = module._exported(torch.nn.Conv1d(2, 3, 3), (torch.zeros(2, 2, 9),))
        assert [node.op_type for node in model.graph.node] == ["Conv"]
        assert torch.backends.cudnn.conv.fp32_precision == "ieee"
    finally:
        torch.backends.cudnn.allow_tf32 = True


# ---- what is refused


def test_the_codec_is_not_changed(codec: Codec, graphs: Path) -> None:
    changed = [type(module).__name__ for module in codec.modules()]
    assert not [name for name in changed if name.startswith("Portable")]


def test_files_that_exist(graphs: Path, small_weights: Path) -> None:
    before = (graphs / "encoder.onnx").stat().st_mtime_ns
    command = ["export", str(small_weights), "--onnx", str(graphs)]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 1
    assert "encoder.onnx exists: say --force to replace it" in result.output
    assert (graphs / "encoder.onnx").stat().st_mtime_ns == before
    with pytest.raises(OutputExistsError):
        export(melcap.load(small_weights), graphs)


def test_a_window_of_a_fractional_number_of_hops(tmp_path: Path) -> None:
    vocoder = replace(SMALL.vocoder, griffin_lim_steps=0)
    config = replace(SMALL, mel=replace(SMALL.mel, n_fft=640, hop=256), vocoder=vocoder)
    with pytest.raises(InputError, match="whole hops, not 640 with hop 256"):
        export(draw_weights(Codec(config)), tmp_path / "graphs")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made(codec: Codec, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(melcap.errors.MelcapError, match=r"file.*: cannot write the graphs"):
        export(codec, tmp_path / "file")


def test_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    result = CliRunner().invoke(app, ["export", "--onnx", str(tmp_path / "graphs")])
    assert result.exit_code == 1
    assert 'pip install "melcap[onnx]"' in result.output
    assert not list(tmp_path.iterdir())


def test_export_ignores_the_defaults_of_the_process(
    codec: Codec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exporter traces with tensors of its own, whose dtype and device are the defaults."""
    module = importlib.import_module("melcap.onnx.export")

    def model(parts: list[Part], example: Tensor, given: Any, *_: object) -> Any:
        made = torch.ones(1) / 2
        assert (made.dtype, made.device.type) == (torch.float32, "cpu")
        assert example.device.type == "cpu"
        assert example.dtype == (torch.float32 if given.name == "wave" else torch.int32)
        tensors = [tensor for part in parts for tensor in part.module.buffers()]
        assert {tensor.device.type for tensor in tensors} == {"cpu"}
        assert not torch.is_autocast_enabled("cpu")
        assert not torch.is_inference_mode_enabled()
        return onnx.ModelProto()

    monkeypatch.setattr(module, "_model", model)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.autocast("cpu", torch.bfloat16), torch.inference_mode(), torch.device("meta"):
            export(codec, tmp_path)
            assert torch.get_default_dtype() == torch.bfloat16
            assert torch.is_autocast_enabled("cpu")
    finally:
        torch.set_default_dtype(before)
