"""Codecs as ONNX graphs, for runtimes without PyTorch: `export`. Needs the extra `onnx`."""

from melcap.onnx.export import export

__all__ = ["export"]
