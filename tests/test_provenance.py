"""The machine and the versions beside a figure."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import pytest

from melcap import provenance
from melcap.provenance import installed_version, processor

CPU_INFO = """processor\t: 0
model name\t: Xeon 6900 : Special
flags\t\t: fpu avx2 avx512f avx5124 amx_bf16

processor\t: 1
model name\t: Xeon 6900 : Special
flags\t\t: fpu avx2 avx512f avx5124 amx_bf16
"""


def test_missing_packages_are_left_out() -> None:
    found = provenance.provenance(["numpy", "melcap-has-no-such-package"])
    assert list(found) == ["machine", "cores", "python", "numpy", "date"]
    assert found["numpy"] == np.__version__
    assert found["date"] == date.today().isoformat()
    assert int(found["cores"]) >= 1
    assert found["machine"] == processor() != ""
    assert installed_version("melcap-has-no-such-package") is None


def test_the_processor_has_its_extensions_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provenance, "_CPU_INFO", tmp_path / "cpuinfo")
    (tmp_path / "cpuinfo").write_text(CPU_INFO)
    assert processor() == "Xeon 6900 : Special (avx2, avx512f, amx_bf16)"
    (tmp_path / "cpuinfo").write_text("Features\t: fp asimd\n")
    assert "(" not in processor()
    (tmp_path / "cpuinfo").unlink()
    assert "(" not in processor()
