"""Cut float32 numbers into the part that TF32 holds and the rest, for products of three TF32."""

from __future__ import annotations

import triton
import triton.language as tl


def takes_tf32(_semantic=None):
    """Return whether the target has TF32 (AMD's matrix cores take float32 as it is)."""
    return tl.constexpr(
        _semantic is None or "tf32x3" in _semantic.builder.options.allowed_dot_input_precisions
    )


takes_tf32.__triton_builtin__ = True  # type: ignore[attr-defined]


@triton.jit
def cut(x):
    """Return the part of a float32 that TF32 holds."""
    return (x.to(tl.int32, bitcast=True) & -8192).to(tl.float32, bitcast=True)
