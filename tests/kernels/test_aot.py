"""Check the ahead-of-time gate: kernels compile without a GPU and keep their promises.

The compiler cannot run in this process, whose kernels are interpreted: it gets one of its own. CI
runs `profiling/aot.py --check` over every configuration and target besides.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from melcap.kernels.launch import Launch

ROOT = Path(__file__).parents[2]
BREAKERS = """
import torch, triton, triton.language as tl
from melcap.kernels import aot
from melcap.kernels.launch import Launch

@triton.jit
def multiply(a, b, out, N: tl.constexpr, PRECISION: tl.constexpr):
    at = tl.arange(0, N)[:, None] * N + tl.arange(0, N)[None, :]
    product = tl.dot(tl.load(a + at), tl.load(b + at), input_precision=PRECISION)
    tl.store(out + at, product)

@triton.jit
def double(a, b, out, N: tl.constexpr, PRECISION: tl.constexpr):
    at = tl.arange(0, N)
    tl.store(out + at, tl.exp(tl.load(a + at).to(tl.float64)).to(tl.float32))

@triton.jit
def pairs(a, b, out, N: tl.constexpr, PRECISION: tl.constexpr):
    at = 2 * tl.arange(0, N)[:, None] + tl.arange(0, 2)[None, :]
    even, odd = tl.split(tl.load(a + at))
    tl.store(out + tl.arange(0, N), even * odd)

@triton.jit
def indexed(a, b, out, N: tl.constexpr, PRECISION: tl.constexpr):
    at = tl.arange(0, N)
    keep = tl.load(a + at[:, None] * N + at[None, :])
    for step in range(N):
        keep = tl.where(keep > step, tl.exp(keep) + tl.load(b + at)[:, None], keep)
    tl.store(out + at[:, None] * N + at[None, :], keep)

def broken(kernel, precision="ieee", n=32, warps=4, targets=("sm_90",), **promises):
    m = torch.empty(n * n, device="meta")
    constants = dict(N=n, PRECISION=precision)
    launch = Launch(kernel, (1,), dict(a=m, b=m, out=m), constants, warps, **promises)
    problems = []
    for target in targets:
        problems += aot.broken_promises(launch, aot.compile_launch(launch, target))
    return problems

def said(problems, *words):
    assert problems and all(any(w in p for p in problems) for w in words), (problems, words)

both = ("sm_80", "sm_90")  # their matrix instructions are not the same
assert broken(multiply, "tf32x3", targets=both, products="tf32", wide=128) == []
said(broken(multiply, "tf32", targets=both), "matrix instructions", "TF32")
said(broken(multiply, "ieee", targets=both, products="tf32"), "no matrix instructions", "no TF32")
said(broken(multiply, "tf32", products="half"), "TF32")
said(broken(double), "float64")
said(broken(double, wide=128, n=16), "no 128-bit loads")
said(broken(double, wide=64, n=16), "no 64-bit loads")
assert broken(pairs, wide=64, n=16) == []
said(broken(indexed, n=128, warps=1), "local memory")
assert broken(multiply, "ieee", registers=255) == []
said(broken(multiply, "ieee", registers=24), "local memory")
aot.SHARED_LIMIT["sm_80"] = aot.SHARED_LIMIT["sm_90"] = 100
said(broken(multiply, "tf32x3", products="tf32"), "shared memory, 100 exist")
print("the gate sees them all")
"""


def compiled(*arguments: str) -> str:
    """Return what a Python with triton's compiler prints."""
    environment = {**os.environ, "TRITON_INTERPRET": "0"}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_first_configuration_of_every_operation() -> None:
    found = compiled("profiling/aot.py", "--check", "--first", "--target=sm_90")
    assert "all promises hold" in found


def test_registers_are_limited_on_cuda_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    launch = Launch(None, (1,), {}, {}, registers=128)
    assert launch.options["maxnreg"] == 128
    assert "maxnreg" not in Launch(None, (1,), {}, {}).options
    monkeypatch.setattr(torch.version, "hip", "6.4")
    assert "maxnreg" not in launch.options  # a launch there refuses what it does not know


def test_each_table_is_of_the_triton_that_it_names() -> None:
    found = {path.stem.removeprefix("aot-") for path in (ROOT / "profiling/results").glob("aot*")}
    older = re.search(r"^OLDER_TRITON := (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert older is not None
    assert older[1] in found
    for version in found:
        table = (ROOT / f"profiling/results/aot-{version}.md").read_text()
        assert f"with triton {version}." in table


@pytest.mark.usefixtures("profiling_scripts")
def test_a_table_that_is_not_what_was_compiled() -> None:
    from aot import HEAD, agrees

    cells = [
        ("a", "1", "k", "sm_90", 40),
        ("a", "1", "k", "gfx942", 41),
        ("b", "2", "k", "sm_90", 42),
    ]
    rows = [f"| {' | '.join(map(str, row))} | 0 | 0 |  |\n" for row in cells]
    table = HEAD.format(version="3.9.0") + "".join(rows)
    assert agrees(rows, table, ["sm_90", "gfx942"], first=False)
    of_one = [rows[0], rows[2]]
    assert agrees(of_one, table, ["sm_90"], first=False)
    assert agrees(of_one[:1], table, ["sm_90"], first=True)
    assert not agrees(of_one[:1], table, ["sm_90"], first=False)
    changed = [rows[0].replace("40", "44"), rows[2]]
    assert not agrees(changed, table, ["sm_90"], first=False)
    assert not agrees(changed[:1], table, ["sm_90"], first=True)


@pytest.mark.slow
def test_what_breaks_a_promise_is_seen(tmp_path: Path) -> None:
    script = tmp_path / "breakers.py"
    script.write_text(BREAKERS)
    assert "sees them all" in compiled(str(script))


@pytest.mark.usefixtures("profiling_scripts")
def test_interpreted_kernels_are_not_compiled() -> None:
    from aot import main

    with pytest.raises(SystemExit, match="TRITON_INTERPRET is 1"):
        main(check=True)
