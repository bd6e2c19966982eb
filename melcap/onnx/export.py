"""Export a codec as two ONNX files, `encoder.onnx` and `decoder.onnx`, and the facts to use them.

Batch and length are dynamic. As in `Codec`, a clip is coded as if endless silence surrounded it.
Memory grows with the length, so long audio should be coded in pieces, with the context that the
facts give.
"""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from melcap.audio_codec import AudioCodec
from melcap.codec import Codec, require_own
from melcap.errors import InputError, MelcapError, OutputExistsError
from melcap.extras import import_extra
from melcap.io.files import replacing
from melcap.model.stages import inputs_for
from melcap.onnx.graphs import Part, decoder_parts, encoder_parts
from melcap.onnx.ort_format import INSTALL, write_ort
from melcap.onnx.stages import Decomposed
from melcap.ops.precision import without_autocast

if TYPE_CHECKING:
    import onnx

OPSET = 18


def export(
    codec: AudioCodec,
    folder: str | os.PathLike[str],
    *,
    decoder_only: bool = False,
    ort: bool = False,
    force: bool = False,
) -> dict[str, Path]:
    """Write `encoder.onnx`, `decoder.onnx` and `facts.json` into a folder.

    - The encoder turns `wave`, float32 [batch, samples] at the codec's rate with zeros after the
      shorter clips, into `tokens`, int32 [batch, rows, ceil(samples / column_samples)].
    - The decoder turns `tokens`, int32 [batch, rows, columns] with the column `silence` after the
      shorter clips, into `wave`, float32 [batch, columns * column_samples] in -1..1.

    The graphs compute in float32. They clip samples beyond -1..1 and check nothing else.
    `facts.json` holds the result of `facts`. So does the metadata of each graph, under `melcap`.

    Args:
        codec: a codec on any device; it is not changed.
        folder: the folder for the files. It is created if it is missing.
        decoder_only: write no encoder, for those who play tokens alone.
        ort: write `encoder.ort` and `decoder.ort` instead, in ONNX Runtime's own format. They load
            faster, and hold operators of ONNX Runtime.
        force: replace files that exist.

    Returns:
        The paths by name: "encoder", "decoder" and "facts".

    Raises:
        OutputExistsError: if a file exists and `force` is not set.
        InputError: for a codec of the published architecture, or if the window of the front end is
            not a whole number of hops.
        MelcapError: if the extra `onnx` is not installed, or a file cannot be written.
    """
    codec = require_own(codec, "the export to ONNX")
    for package in ("onnx", "onnxscript", *(["onnxruntime"] if ort else [])):
        import_extra(package, INSTALL)
    mel = codec.config.mel
    if mel.n_fft % mel.hop:
        raise InputError(
            f"the export needs an n_fft of whole hops, not {mel.n_fft} with hop {mel.hop}"
        )
    suffix = ".ort" if ort else ".onnx"
    graphs = {"decoder": _decoder} if decoder_only else {"encoder": _encoder, "decoder": _decoder}
    paths = {name: Path(folder) / f"{name}{suffix}" for name in graphs}
    paths["facts"] = Path(folder) / "facts.json"
    for path in paths.values():
        if path.exists() and not force:
            raise OutputExistsError(f"{path} exists: say --force to replace it")
    told = json.dumps(facts(codec))
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with _plain_process():
            models = {name: graph(codec, {"melcap": told}) for name, graph in graphs.items()}
        with ExitStack() as stack:  # all files, or none
            places = {name: stack.enter_context(replacing(path)) for name, path in paths.items()}
            for name, model in models.items():
                if ort:
                    write_ort(model, places[name])
                else:
                    places[name].write_bytes(model.SerializeToString())
            places["facts"].write_text(told + "\n", encoding="utf-8")
    except OSError as error:
        raise MelcapError(f"{folder}: cannot write the graphs: {error.strerror}") from error
    return paths


def _encoder(codec: Codec, metadata: dict[str, str]) -> onnx.ModelProto:
    """Return the graph from `wave` to `tokens`."""
    samples = torch.zeros(2, 2 * codec.config.column_samples + 1)
    wave, tokens = _values(codec)
    return _model(encoder_parts(codec), samples, wave, tokens, metadata)


def _decoder(codec: Codec, metadata: dict[str, str]) -> onnx.ModelProto:
    """Return the graph from `tokens` to `wave`."""
    columns = torch.zeros(2, codec.config.rows, 3).int()
    wave, tokens = _values(codec)
    return _model(decoder_parts(codec), columns, tokens, wave, metadata)


def _values(codec: Codec) -> tuple[onnx.ValueInfoProto, onnx.ValueInfoProto]:
    """Return `wave` and `tokens`, with their types and shapes."""
    from onnx import TensorProto
    from onnx.helper import make_tensor_value_info

    return (
        make_tensor_value_info("wave", TensorProto.FLOAT, ["batch", "samples"]),
        make_tensor_value_info(
            "tokens", TensorProto.INT32, ["batch", codec.config.rows, "columns"]
        ),
    )


def facts(codec: Codec) -> dict[str, Any]:
    """Return the numbers that a user of the graphs needs, as values for JSON.

    `encoder_context` and `decoder_context` are numbers of columns before and after a piece. A piece
    that is coded together with them gives the same result as in the whole clip.
    """
    config, unit = codec.config, codec.config.column_samples
    first, last = inputs_for(codec.encode_stages, 0, 1)
    earliest, latest = inputs_for(codec.decode_stages, 0, unit)
    return {
        "model": codec.model,
        "tokenizer_id": codec.tokenizer_id,
        "sample_rate": config.mel.sample_rate,
        "column_samples": unit,
        "rows": config.rows,
        "codebook_size": config.tokenizer.codebook_size,
        "silence": codec.silence.tolist(),
        "encoder_context": [-(first // unit), -(-last // unit) - 1],
        "decoder_context": [-earliest, latest - 1],
    }


def _model(
    parts: Sequence[Part],
    example: Tensor,
    graph_input: onnx.ValueInfoProto,
    graph_output: onnx.ValueInfoProto,
    metadata: dict[str, str],
) -> onnx.ModelProto:
    """Return the parts as one model.

    Each part is exported with the outputs of the parts before it, each run once on the example.
    Sizes are symbols, so an example of any length will do.

    Args:
        parts: the parts, in order.
        example: an input of the first part.
        graph_input: name, type and shape of the model's input.
        graph_output: name, type and shape of the model's output.
        metadata: the metadata of the model.
    """
    from onnx.helper import set_model_props

    from melcap.onnx.assembly import assembled

    models = []
    state: tuple[Tensor, ...] = (example,)
    for part in parts:
        models.append((_exported(part.module.cpu().eval(), state), part.times))
        with torch.no_grad():
            # The exporter fails on views with gaps.
            state = tuple(tensor.contiguous() for tensor in part.module(*state))
    model = assembled(models, graph_input, graph_output)
    set_model_props(model, metadata)
    return model


def _exported(module: nn.Module, example: tuple[Tensor, ...]) -> onnx.ModelProto:
    """Return the module as a model for tensors [batch, ..., time] of any batch and length."""
    import torch._dynamo.config as tracing

    dynamic = torch.export.Dim.DYNAMIC
    shapes = tuple({0: dynamic, tensor.ndim - 1: dynamic} for tensor in example)
    # The cache of traced calls hardly ever serves symbolic sizes, and its bookkeeping costs more.
    uncached = tracing.patch(fake_tensor_cache_enabled=False)
    with _quiet(), torch.no_grad(), uncached:
        with Decomposed():
            exported = torch.export.export(module, example, dynamic_shapes=shapes)
        program = torch.onnx.export(
            exported, dynamo=True, external_data=False, opset_version=OPSET, verbose=False
        )
    assert program is not None
    return program.model_proto


@contextmanager
def _plain_process() -> Iterator[None]:
    """Set the defaults of a fresh process, because torch's exporter creates tensors of its own.

    The default dtype belongs to all threads of the process.
    """
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with torch.inference_mode(False), without_autocast(), torch.device("cpu"):
            with _readable_switches():
                yield
    finally:
        torch.set_default_dtype(dtype)


@contextmanager
def _readable_switches() -> Iterator[None]:
    """Let the exporter read cuDNN's old switch for TF32, which fails where the new ones differ."""
    cudnn: Any = torch.backends.cudnn
    try:
        _ = cudnn.allow_tf32
    except RuntimeError:
        before = cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision
        cudnn.allow_tf32 = True  # sets all of them; the export computes on the CPU
        try:
            yield
        finally:
            cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision = before
    else:
        yield


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the exporter's warnings, which do not matter here (a missing torchvision)."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)
