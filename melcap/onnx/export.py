"""A codec as two ONNX files, `encoder.onnx` and `decoder.onnx`, with what a user of them must know.

Batch and length are dynamic. A clip is coded as if silence went on for ever around it, as `Codec`
does; memory grows with the length, so long audio goes through in pieces with the context that the
metadata names.
"""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from melcap.codec import Codec
from melcap.errors import InputError, MelcapError, OutputExistsError
from melcap.extras import import_extra
from melcap.files import replacing
from melcap.onnx.graphs import Decoder, Encoder
from melcap.onnx.stages import DECOMPOSITIONS
from melcap.precision import without_autocast
from melcap.stages import inputs_for

OPSET = 18


def export(
    codec: Codec, folder: str | os.PathLike[str], *, force: bool = False
) -> tuple[Path, Path]:
    """Write `encoder.onnx` and `decoder.onnx` into a folder, which is made where there is none.

    - encoder: `wave` float32 [batch, samples] at the codec's rate, zeros behind the shorter clips,
      to `tokens` int32 [batch, rows, ceil(samples / column_samples)].
    - decoder: `tokens` int32 [batch, rows, columns], the column `silence` behind the shorter clips,
      to `wave` float32 [batch, columns * column_samples] in -1..1.

    Computed in float32; samples beyond -1..1 are clipped, and nothing else is checked in a graph.
    Each file's metadata has `melcap`, JSON of the facts that `facts` gives.

    Args:
        codec: on any device; it is not changed.
        folder: for the two files.
        force: replace files that exist.

    Raises:
        OutputExistsError: where a file exists, and `force` was not asked for.
        InputError: for a front end whose window is no whole number of hops.
        MelcapError: where the extra `onnx` is not installed, or a file cannot be written.
    """
    for package in ("onnx", "onnxscript"):
        import_extra(package, 'pip install "melcap[onnx]"')
    mel = codec.config.mel
    if mel.n_fft % mel.hop:
        raise InputError(
            f"the export needs an n_fft of whole hops, not {mel.n_fft} with hop {mel.hop}"
        )
    encoder, decoder = Path(folder) / "encoder.onnx", Path(folder) / "decoder.onnx"
    for path in (encoder, decoder):
        if path.exists() and not force:
            raise OutputExistsError(f"{path} exists: say --force to replace it")
    rows, unit = codec.config.rows, codec.config.column_samples
    described = {"melcap": json.dumps(facts(codec))}
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with _plain_process():
            wave = ("wave", torch.zeros(2, 2 * unit + 1), ["batch", "samples"])
            indices = torch.zeros(2, rows, 3, dtype=torch.int32)
            tokens = ("tokens", indices, ["batch", rows, "columns"])
            programs = (
                _program(Encoder(codec), wave, tokens, described),
                _program(Decoder(codec), tokens, wave, described),
            )
        with replacing(encoder) as first, replacing(decoder) as second:  # both, or neither
            for program, path in zip(programs, (first, second), strict=True):
                program.save(path, external_data=False)
    except OSError as error:
        raise MelcapError(f"{folder}: cannot write the graphs: {error.strerror}") from error
    return encoder, decoder


def facts(codec: Codec) -> dict[str, Any]:
    """What a user of the graphs must know, ready for JSON.

    `encoder_context` and `decoder_context` are the columns before and after a piece that must go
    through with it, for the piece to come out as in the whole.
    """
    config, unit = codec.config, codec.config.column_samples
    first, last = inputs_for(codec.encode_stages, 0, 1)
    earliest, latest = inputs_for(codec.decode_stages, 0, unit)
    return {
        "model": codec.model,
        "sample_rate": config.mel.sample_rate,
        "column_samples": unit,
        "rows": config.rows,
        "codebook_size": config.tokenizer.codebook_size,
        "silence": codec.silence.tolist(),
        "encoder_context": [-(first // unit), -(-last // unit) - 1],
        "decoder_context": [-earliest, latest - 1],
    }


def _program(
    module: nn.Module,
    given: tuple[str, Tensor, list[Any]],
    made: tuple[str, Tensor, list[Any]],
    described: dict[str, str],
) -> torch.onnx.ONNXProgram:
    """The module as a graph; `given` and `made` are name, example and axes of what it is about."""
    import onnx_ir

    name, example, axes = given
    dynamic = torch.export.Dim.DYNAMIC
    shape = {place: dynamic for place, axis in enumerate(axes) if isinstance(axis, str)}
    with _quiet(), torch.no_grad():
        exported = torch.export.export(module.cpu().eval(), (example,), dynamic_shapes=(shape,))
        plain = exported.run_decompositions(DECOMPOSITIONS)
        program = torch.onnx.export(
            plain,
            input_names=[name],
            output_names=[made[0]],
            dynamo=True,
            external_data=False,
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None
    graph = program.model.graph
    graph.inputs[0].shape = onnx_ir.Shape(axes)
    graph.outputs[0].shape = onnx_ir.Shape(made[2])
    program.model.metadata_props.update(described)
    return program


@contextmanager
def _plain_process() -> Iterator[None]:
    """Set the defaults of a fresh process inside, as torch's exporter creates tensors of its own.

    The default dtype belongs to all threads of the process.
    """
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with torch.inference_mode(False), without_autocast(), torch.device("cpu"):
            yield
    finally:
        torch.set_default_dtype(dtype)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter says of things that a codec does not have, as torchvision."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)
