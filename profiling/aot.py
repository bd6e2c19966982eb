"""Compile every kernel for every target, without a GPU, and check what its launch promises.

    python profiling/aot.py            # all of them; writes profiling/results/aot-VERSION.md
    python profiling/aot.py --check    # all of them; compares the table with the file
    python profiling/aot.py --check --target sm_90            # compares the rows of one target
    python profiling/aot.py --check --target sm_90 --first    # one configuration of each kernel

Each version of triton has a table of its own. `make kernels` compares two targets; `make
kernels-all` compares everything. A change to a kernel changes its rows, and the table must then be
made again, for all targets.

The script ends with status 1 and a list where a kernel spills, needs more shared memory than there
is, has float64 or TF32 instructions that it must not have, or lacks matrix instructions or wide
loads that it promises. It needs the compiler, so TRITON_INTERPRET must not be 1.
"""

from __future__ import annotations

import importlib
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from typing import Annotated

import triton
import typer
from paths import RESULTS

from melcap import kernels
from melcap.kernels import aot
from melcap.kernels.launch import interpreted

TABLE = RESULTS / f"aot-{triton.__version__}.md"
HEAD = """# Kernels, compiled ahead of time

By `python profiling/aot.py` with triton {version}. Registers and local memory (spills, stack) in
registers and bytes a thread, shared memory in bytes a block.

| operation | configuration | kernel | target | registers | local | shared | instructions |
| --- | --- | --- | --- | ---: | ---: | ---: | ---: |
"""
Job = tuple[str, str, str]


def jobs(targets: list[str], first: bool) -> list[Job]:
    """Return (operation, configuration, target) of everything that is to be compiled.

    A launch that needs more shared memory than a target has is never planned there.
    """
    found = []
    for operation in kernels.OPERATIONS:
        launches = list(_shipped(operation).items())
        found += [
            (operation, name, target)
            for name, launch in (launches[:1] if first else launches)
            for target in targets
            if launch.shared <= aot.SHARED_LIMIT[target]
        ]
    return found


def build(job: Job) -> tuple[str, list[str]]:
    """Return the row of the table, and the broken promises."""
    operation, name, target = job
    launch = _shipped(operation)[name]
    built = aot.compile_launch(launch, target)
    count = sum(line.rstrip().endswith(";") for line in built.assembly.splitlines())
    cells = (
        operation,
        name,
        launch.name,
        target,
        built.registers,
        built.local,
        built.shared,
        count or "",
    )
    broken = [
        f"{operation}, {name}, {target}: {what}" for what in aot.broken_promises(launch, built)
    ]
    return "| " + " | ".join(str(cell) for cell in cells) + " |\n", broken


def _shipped(operation: str) -> dict[str, aot.Launch]:
    return importlib.import_module(f"melcap.kernels.{operation}").shipped()


def agrees(rows: list[str], table: str, targets: list[str], first: bool) -> bool:
    """Return whether rows are the table's for these targets or, with `first`, among them."""
    kept = [line for line in table.splitlines(keepends=True) if line.split(" | ")[3:4]]
    kept = [line for line in kept if line.split(" | ")[3] in targets]
    return set(rows) <= set(kept) if first else rows == kept


def main(
    check: Annotated[bool, typer.Option(help="compare with the file, write nothing")] = False,
    target: Annotated[list[str] | None, typer.Option(help=", ".join(aot.TARGETS))] = None,
    first: Annotated[bool, typer.Option(help="one configuration of each operation")] = False,
) -> None:
    """Compile, check, and write or compare the table."""
    if interpreted():
        sys.exit("TRITON_INTERPRET is 1: kernels are interpreted, unset it to compile them")
    if (first or target) and not check:
        sys.exit("the table holds everything: leave out --target and --first, or add --check")
    targets = target or list(aot.TARGETS)
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        done = list(pool.map(build, jobs(targets, first)))
    broken = [line for _, lines in done for line in lines]
    rows = [row for row, _ in done]
    if broken:
        sys.exit("\n".join(broken))
    if not check:
        TABLE.write_text(HEAD.format(version=triton.__version__) + "".join(rows))
    elif not TABLE.exists():
        print(f"there is no {TABLE.name}: the table is not compared")
    elif not agrees(rows, TABLE.read_text(), targets, first):
        sys.exit(f"{TABLE.name} is not what these kernels give: run python profiling/aot.py")
    print(f"{len(done)} compiled by triton {triton.__version__}, all promises hold")


if __name__ == "__main__":
    typer.run(main)
