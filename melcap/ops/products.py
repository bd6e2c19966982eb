"""Compute linear layers on a CPU by oneDNN, which PyTorch itself uses for convolutions alone.

PyTorch's float32 products on x86 are those of MKL. On AMD processors they reach less than half the
rate of oneDNN, which also applies the activation to results that are still in a register.
"""

from __future__ import annotations

import platform
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from melcap.ops.activations import activate
from melcap.ops.library import wants_gradient


def linear(x: Tensor, weight: Tensor, bias: Tensor, activation: str = "none") -> Tensor:
    """Return a linear layer with an activation, by oneDNN where that can run.

    It can for float32 on an x86 processor, where no gradient is wanted. Everything else runs in
    plain PyTorch.

    Args:
        x: [..., channels_in], floating point.
        weight: [channels_out, channels_in].
        bias: [channels_out].
        activation: "none" or "gelu" (exact).

    Returns:
        [..., channels_out].
    """
    tensors = (x, weight, bias)
    if (
        x.device.type == "cpu"
        and all(tensor.dtype == torch.float32 for tensor in tensors)
        and x.numel()
        and has_onednn()
        and torch.backends.mkldnn.enabled
        and not wants_gradient(*tensors)
        and not torch.compiler.is_compiling()
    ):
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, activation, [], "none")
    return activate(F.linear(x, weight, bias), activation, None)


@cache
def has_onednn() -> bool:
    """Return whether this build of PyTorch has oneDNN's linear layer with an activation.

    The operator is PyTorch's own, for graphs that its compiler makes. It is not a public one.
    """
    return (
        platform.machine().lower() in ("x86_64", "amd64")
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )
