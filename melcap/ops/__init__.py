"""The codec's operations, each with a plain-PyTorch reference, on the backend in force.

Results do not depend on autocast, or on the default dtype and device. Without a gradient they do
not depend on the switches for TF32 either. With one, `convnext1d`, `conv2d`, `resblock2d` and the
backward pass of `upsample_conv1d` follow these, as PyTorch does, and `conv2d` and `resblock2d`
follow autocast too, by which networks learn faster.

Each operation has a module of its name, with everything about it: public function, reference,
schema, fake, gradient, FLOPs and the form for other graph runtimes. Importing it defines it.
"""

from melcap.ops.channel_norm import channel_norm
from melcap.ops.conv2d import conv2d
from melcap.ops.convnext1d import convnext1d
from melcap.ops.griffin_lim import griffin_lim
from melcap.ops.log_mel import log_mel
from melcap.ops.nearest_code import nearest_code
from melcap.ops.polar_istft import polar_istft
from melcap.ops.registry import backend_report, get_backend, set_backend, use_backend
from melcap.ops.resblock2d import resblock2d
from melcap.ops.upsample_conv1d import upsample_conv1d

__all__ = [
    "backend_report",
    "channel_norm",
    "conv2d",
    "convnext1d",
    "get_backend",
    "griffin_lim",
    "log_mel",
    "nearest_code",
    "polar_istft",
    "resblock2d",
    "set_backend",
    "upsample_conv1d",
    "use_backend",
]
