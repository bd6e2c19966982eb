"""The folders of this repository that the scripts read and write."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "profiling" / "results"
AUDIO = ROOT / "examples" / "audio"
