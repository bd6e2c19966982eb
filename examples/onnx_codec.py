"""Run the codec without PyTorch, with numpy, soundfile and ONNX Runtime.

    melcap export --onnx graphs
    pip install numpy soundfile onnxruntime
    python onnx_codec.py graphs song.flac decoded.wav

Clips of any length need bounded memory. They are computed in pieces with the context that the
graphs ask for, and the result is that of one piece. decoder.onnx is enough for decoding alone.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
import soundfile

Wave = npt.NDArray[np.float32]
Tokens = npt.NDArray[np.int32]


class Graph:
    """An exported graph in ONNX Runtime; `facts` holds what the file says about the codec."""

    def __init__(self, path: Path, threads: int = 0) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads  # 0: all cores
        self.session = onnxruntime.InferenceSession(path, options)
        self.facts = json.loads(self.session.get_modelmeta().custom_metadata_map["melcap"])
        self.given = self.session.get_inputs()[0].name

    def run(self, x: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        """Return the output of the graph for one input."""
        return self.session.run(None, {self.given: x})[0]


def encode(graph: Graph, wave: Wave, piece: int = 256) -> Tokens:
    """Return the tokens, int32 [batch, rows, columns], of float32 [batch, samples]."""
    unit = graph.facts["column_samples"]
    before, after = graph.facts["encoder_context"]
    columns = -(-wave.shape[1] // unit)
    parts = []
    for begin in range(0, columns, piece):
        end = min(begin + piece, columns)
        first = max(0, begin - before)
        tokens = graph.run(wave[:, first * unit : (end + after) * unit])
        parts.append(tokens[..., begin - first : end - first])
    return np.concatenate(parts, axis=-1)


def decode(graph: Graph, tokens: Tokens, piece: int = 256) -> Wave:
    """Return float32 [batch, columns * column_samples] for tokens [batch, rows, columns]."""
    unit = graph.facts["column_samples"]
    before, after = graph.facts["decoder_context"]
    columns = tokens.shape[-1]
    parts = []
    for begin in range(0, columns, piece):
        end = min(begin + piece, columns)
        first = max(0, begin - before)
        wave = graph.run(tokens[..., first : end + after])
        parts.append(wave[:, (begin - first) * unit : (end - first) * unit])
    return np.concatenate(parts, axis=-1)


def main() -> None:
    """Read the command line, and encode or decode."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("graphs", type=Path, help="the folder that `melcap export` wrote")
    parser.add_argument("audio", type=Path, help="what to encode and decode")
    parser.add_argument("out", type=Path, help="a .wav or .flac file")
    arguments = parser.parse_args()

    encoder = Graph(arguments.graphs / "encoder.onnx")
    decoder = Graph(arguments.graphs / "decoder.onnx")
    samples, rate = soundfile.read(arguments.audio, dtype="float32", always_2d=True)
    if rate != encoder.facts["sample_rate"]:
        sys.exit(f"{arguments.audio} has {rate} Hz: resample it to {encoder.facts['sample_rate']}")
    tokens = encode(encoder, np.ascontiguousarray(samples.T))  # one row for each channel
    decoded = decode(decoder, tokens)[:, : len(samples)]
    soundfile.write(arguments.out, decoded.T, rate)
    print(f"{arguments.audio}: {tokens.size} tokens of {tokens.shape[1]} rows -> {arguments.out}")


if __name__ == "__main__":
    main()
