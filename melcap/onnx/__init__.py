"""Export codecs as ONNX graphs, for runtimes without PyTorch; needs the extra `onnx`."""

from melcap.onnx.export import export

__all__ = ["export"]
