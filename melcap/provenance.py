"""The machine and the versions that a figure was measured with."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

EXTENSIONS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
"""Extensions of x86 processors that change speeds much."""

_CPU_INFO = Path("/proc/cpuinfo")


def provenance(packages: Iterable[str]) -> dict[str, str]:
    """Return the processor, its cores, the versions of Python and packages, and today's date.

    Args:
        packages: The names of distributions. Those that are not installed are left out.

    Returns:
        The values under "machine", "cores", "python", the names of the packages, and "date".

    Example:
        >>> from melcap.provenance import provenance
        >>> list(provenance(["numpy", "not-installed"]))
        ['machine', 'cores', 'python', 'numpy', 'date']
    """
    return {
        "machine": processor(),
        "cores": str(os.cpu_count()),
        "python": platform.python_version(),
        **{name: found for name in packages if (found := installed_version(name))},
        "date": date.today().isoformat(),
    }


def processor() -> str:
    """Return the name of the CPU, with its extensions that change speeds much in parentheses."""
    lines = _CPU_INFO.read_text().splitlines() if _CPU_INFO.exists() else []
    fields = {key.strip(): value.strip() for key, _, value in (x.partition(":") for x in lines)}
    flags = fields.get("flags", "").split()
    extensions = [extension for extension in EXTENSIONS if extension in flags]
    name = fields.get("model name") or platform.processor() or platform.machine()
    return f"{name} ({', '.join(extensions)})" if extensions else name


def installed_version(package: str) -> str | None:
    """Return the version of an installed distribution, or None."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
