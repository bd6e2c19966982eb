"""Compile kernels ahead of time, for targets that need not be in this machine, and check them.

The specialisation is the one that a launch would get: an integer of 1 becomes a constant, and
integers and addresses that are multiples of 16 are known to be (torch's allocations are).
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import triton.backends.nvidia
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.compiler import compile as compile_source

from .launch import Launch

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_86": GPUTarget("cuda", 86, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
SHARED_LIMIT = {
    "sm_80": 166912,
    "sm_86": 101376,
    "sm_90": 232448,
    "sm_100": 232448,
    "gfx942": 65536,
}
"""The bytes of shared memory that one block may have."""

_CUDA = {
    "float64": r"\.f64",
    "matrix": r"\b(mma\.sync|wgmma\.mma_async|tcgen05\.mma)",
    "tf32": r"tf32",
    "64-bit": r"ld\.global\S*\.v2\.b32",
    "128-bit": r"ld\.global\S*\.v4\.b32|cp\.async\.cg\S* \[[^,]*, *\[[^,]*, 0x10|cp\.async\.bulk",
}
_AMD = {
    "float64": r"\bv_(add|mul|fma|fmac|cvt)\w*_f64",
    "matrix": r"\bv_mfma",
    "tf32": r"\bv_mfma\w*xf32",
    "64-bit": r"\b(global|buffer)_load_dwordx2",
    "128-bit": r"\b(global|buffer)_load_dwordx4",
}
"""The patterns of the instructions that promises are about."""

_POINTERS = {
    torch.float32: "*fp32",
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.int32: "*i32",
    torch.int64: "*i64",
    torch.uint8: "*u8",
}


@dataclass(frozen=True)
class Compiled:
    """A compiled launch: assembly (PTX or AMDGCN) and the resources it needs.

    `local` counts the bytes of a thread in device memory that replace registers: spills, stack and
    indexed arrays. `shared` is the bytes of a block.
    """

    kernel: str
    target: str
    assembly: str
    registers: int
    local: int
    shared: int


def signature(launch: Launch) -> tuple[dict[str, str], dict[str, Any], dict[tuple[int], Any]]:
    """Return the types, constants and alignments that a launch is specialised for."""
    types, constants, alignments = {}, dict(launch.constants), {}
    for place, parameter in enumerate(launch.kernel.params):
        name = parameter.name
        value = launch.arguments.get(name)
        fixed = parameter.do_not_specialize
        if name in constants:
            types[name] = "constexpr"
        elif value is None or (type(value) is int and value == 1 and not fixed):
            types[name], constants[name] = "constexpr", value
        elif isinstance(value, Tensor):
            types[name] = _POINTERS[value.dtype]
            alignments[place,] = [["tt.divisibility", 16]]
        elif isinstance(value, int):
            types[name] = "i32" if -(2**31) <= value < 2**31 else "i64"
            if value % 16 == 0 and not fixed:
                alignments[place,] = [["tt.divisibility", 16]]
        else:
            types[name] = "fp32"
    return types, constants, alignments


def compile_launch(launch: Launch, target: str) -> Compiled:
    """Compile a launch for one of `TARGETS`."""
    types, constants, alignments = signature(launch)
    source = ASTSource(fn=launch.kernel, signature=types, constexprs=constants, attrs=alignments)
    built = compile_source(source, target=TARGETS[target], options=launch.options)
    if TARGETS[target].backend == "cuda":
        assembly = built.asm["ptx"]
        registers, local = _cuda_resources(built.asm["cubin"])
    else:
        assembly = built.asm["amdgcn"]
        registers, local = _amd_resources(assembly)
    return Compiled(launch.name, target, assembly, registers, local, built.metadata.shared)


def broken_promises(launch: Launch, built: Compiled) -> list[str]:
    """Return the promises that a compiled launch breaks; [] if all of them hold."""
    cuda = TARGETS[built.target].backend == "cuda"
    instructions = _CUDA if cuda else _AMD
    has = {
        name: re.search(pattern, built.assembly) is not None
        for name, pattern in instructions.items()
    }
    broken = []
    if built.local:
        broken.append(f"{built.local} bytes of local memory")
    if built.shared > SHARED_LIMIT[built.target]:
        broken.append(f"{built.shared} bytes of shared memory, {SHARED_LIMIT[built.target]} exist")
    if has["float64"]:
        broken.append("float64 instructions")
    if has["matrix"] != bool(launch.products):
        broken.append("matrix instructions" if has["matrix"] else "no matrix instructions")
    if has["tf32"] != (cuda and launch.products == "tf32"):
        broken.append("TF32" if has["tf32"] else "no TF32")
    if launch.wide and not has[f"{launch.wide}-bit"]:
        broken.append(f"no {launch.wide}-bit loads")
    return broken


def _cuda_resources(cubin: bytes) -> tuple[int, int]:
    """Return registers and bytes of local memory, from the cuobjdump in triton's package."""
    tool = Path(triton.backends.nvidia.__file__).parent / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        report = subprocess.run(
            [tool, "--dump-resource-usage", file.name], capture_output=True, text=True, check=True
        ).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+) .*LOCAL:(\d+)", report)
    assert found is not None, report
    registers, stack, local = (int(number) for number in found.groups())
    return registers, stack + local


def _amd_resources(assembly: str) -> tuple[int, int]:
    """Return vector registers and bytes of scratch, from the metadata in the assembly."""
    (registers,) = re.findall(r"\.vgpr_count: +(\d+)", assembly)
    (scratch,) = re.findall(r"\.private_segment_fixed_size: +(\d+)", assembly)
    return int(registers), int(scratch)
