"""Kernel launches as plain data: what runs on a device is what the ahead-of-time gate compiles.

An operation plans its launches from shapes alone; `run` executes a plan, and `aot` compiles the
same plan for any target. Every launch is counted, so that a test can tell which kernel ran.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import triton
from torch import Tensor

launched: Counter[str] = Counter()
"""The number of launches of each kernel in this process, by name."""


@dataclass(frozen=True)
class Launch:
    """A kernel with everything that it is launched with.

    Attributes:
        kernel: the function that `triton.jit` decorates.
        grid: number of programs along each axis.
        arguments: tensors, ints and floats by the names of the kernel's parameters.
        constants: the kernel's `tl.constexpr` parameters.
        warps: warps of a program.
        stages: stages of the software pipeline.
        fused: lets the compiler contract a * b + c into one rounding. It is always passed on,
            because triton's default differs between versions.
        products: a promise that the ahead-of-time gate checks: what dot products run on, "" for
            none, "tf32" (three for each float32 product) or "half" (16-bit operands).
        wide: another promise: bits of the widest loads, 64 or 128; 0 promises nothing.
        registers: limit of the registers of a thread on a CUDA device. With 0 ptxas chooses, and
            may spill some so that more blocks run at the same time.
        shared: bytes of shared memory that a device must have for it; 0 where any has enough.
    """

    kernel: Any
    grid: tuple[int, ...]
    arguments: Mapping[str, Any]
    constants: Mapping[str, Any]
    warps: int = 4
    stages: int = 2
    fused: bool = True
    products: str = ""
    wide: int = 0
    registers: int = 0
    shared: int = 0

    @property
    def name(self) -> str:
        """Return the kernel's name."""
        return str(self.kernel.__name__)

    @property
    def options(self) -> dict[str, Any]:
        """Return the options for the compiler."""
        found = {
            "num_warps": self.warps,
            "num_stages": self.stages,
            "enable_fp_fusion": self.fused,
        }
        # A launch on ROCm refuses this option.
        if self.registers and torch.version.hip is None:
            found["maxnreg"] = self.registers
        return found


def interpreted() -> bool:
    """Return whether kernels run in triton's interpreter, on the CPU (TRITON_INTERPRET=1)."""
    return bool(triton.knobs.runtime.interpret)


def power_of_two(number: int) -> int:
    """Return the smallest power of two that is at least `number`."""
    return 1 << (number - 1).bit_length()  # triton's own function takes a microsecond more


@cache
def shared_memory(device: torch.device) -> int:
    """Return the bytes of shared memory that a block may have on a device; 0 on a CPU."""
    if device.type != "cuda":
        return 0
    index = torch.cuda.current_device() if device.index is None else device.index
    return int(triton.runtime.driver.active.utils.get_device_properties(index)["max_shared_mem"])


def run(launch: Launch) -> None:
    """Launch a kernel on the device of its tensors."""
    device = next(value.device for value in launch.arguments.values() if isinstance(value, Tensor))
    here = torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()
    with here:
        launch.kernel[launch.grid](**launch.arguments, **launch.constants, **launch.options)
    launched[launch.name] += 1


def out_of_reach(*tensors: Tensor | None) -> list[str]:
    """Return why no kernel can work on these tensors, by device or dtype; [] if one can."""
    reasons = []
    for tensor in tensors:
        if tensor is None:
            continue
        if tensor.device.type != "cuda" and not interpreted():
            reasons.append(f"Triton kernels take CUDA tensors, not one on {tensor.device}")
        if tensor.dtype not in (torch.float32, torch.float16, torch.bfloat16):
            reasons.append(f"Triton kernels take float32, float16 and bfloat16, not {tensor.dtype}")
    return list(dict.fromkeys(reasons))
