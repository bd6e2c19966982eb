"""Write a model in ONNX Runtime's own format, which it loads faster than ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from melcap.errors import MelcapError
from melcap.extras import import_extra

if TYPE_CHECKING:
    import onnx

INSTALL = 'pip install "melcap[onnx]"'


def write_ort(model: onnx.ModelProto, path: Path) -> None:
    """Write a model to an `.ort` file, after the optimisations that suit every processor.

    Args:
        model: the model.
        path: the file to write, whose name ends in .ort.

    Raises:
        MelcapError: where the file cannot be written.
    """
    onnxruntime = import_extra("onnxruntime", INSTALL)
    options = onnxruntime.SessionOptions()
    # The level above this one would choose layouts for the processor of this machine.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.add_session_config_entry("session.save_model_format", "ORT")
    options.optimized_model_filepath = str(path)
    try:
        onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's own errors have no base class but this one
        raise MelcapError(
            f"{path.parent}: ONNX Runtime cannot write a graph there; is there room on the disk? "
            f"Its error: {error}"
        ) from error
