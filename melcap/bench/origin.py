"""The machine and the versions that a figure was measured with."""

from __future__ import annotations

import os

import torch

import melcap
from melcap.provenance import provenance

PACKAGES = ("torch", "triton")


def origin(device: str, model: str) -> dict[str, str]:
    """Return the machine, its load, versions, the model and the date: what every result carries.

    Args:
        device: the device that is measured. A GPU takes the place of the processor.
        model: the name of the weights.
    """
    found = provenance(PACKAGES)
    if device != "cpu":
        found["machine"] = torch.cuda.get_device_name(device)
    if hasattr(os, "getloadavg"):  # not on Windows
        found["load before"] = f"{os.getloadavg()[0]:.2f}"
    return found | {"melcap": melcap.__version__, "model": model}
