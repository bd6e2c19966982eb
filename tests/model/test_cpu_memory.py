"""Freed memory stays in the process, so that layers need not wait for pages of the kernel."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, torch
from melcap.model.cpu_memory import keep_freed_memory
{call}
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for quarters in range(1, 30):
    torch.ones(quarters << 18, dtype=torch.uint8)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
PAGES = 29 * 64
"""The pages of the largest block, of 4 KB each."""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_freed_memory_is_used_again() -> None:
    """A block that is larger than all before it would have new pages, which are 15 times as many.

    The C library may know blocks of some size already, from the import of torch.
    """

    def faults(call: str) -> int:
        words = [sys.executable, "-c", FAULTS.format(call=call)]
        return int(subprocess.run(words, check=True, capture_output=True, text=True).stdout)

    assert faults("") > 10 * PAGES
    assert faults("keep_freed_memory()") < 5 * PAGES
