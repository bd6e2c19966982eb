"""Diagnose an installation for `melcap doctor`: versions, backends, reasons and advice."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from typing import Any

import torch

from melcap import __version__
from melcap.cli.output import columns
from melcap.errors import WeightsError
from melcap.ops import backend_report, registry
from melcap.pretrained import load
from melcap.processes import usable_cores
from melcap.provenance import installed_version, processor

NEEDED = ("numpy", "safetensors", "soundfile", "soxr", "av", "typer", "rich")
OPTIONAL = ("triton", "matplotlib")
ADVICE = {
    "triton is not installed": "pip install triton (wheels: Linux on x86-64 and aarch64)",
    "torch sees no CUDA device": "",  # depends on torch: see _about_cuda
}
"""Advice, by a part of the reason that a backend gives."""


def examine() -> tuple[dict[str, Any], str]:
    """Examine this installation.

    Returns:
        The findings, ready for JSON, and the same as text. `problems` keep melcap from working;
        `notes` name what it could do and does not do here. Both say what to do.
    """
    problems: list[dict[str, str]] = []
    notes: list[dict[str, str]] = []
    versions = {name: installed_version(name) for name in (*NEEDED, *OPTIONAL)}
    for name in NEEDED:
        if versions[name] is None:
            problems.append({"what": f"{name} is not installed", "do": f"pip install {name}"})
    if versions["matplotlib"] is None:
        what = "matplotlib is not installed: `melcap plot` cannot run"
        notes.append({"what": what, "do": 'pip install "melcap[plot]"'})
    threads, cores = torch.get_num_threads(), usable_cores()
    if threads < cores:
        what = f"torch uses {threads} of {cores} cores"
        notes.append({"what": what, "do": "unset OMP_NUM_THREADS, or set it higher"})
    report: dict[str, Any] = backend_report()
    for name, reasons in report["available"].items():
        for reason in reasons:
            what = f"the {name} backend cannot run: {reason}"
            notes.append({"what": what, "do": _advice(reason)})
    for name in report["switched_off"]:
        what = f"the kernel of {name} is switched off by {registry.SWITCH}: PyTorch runs it"
        notes.append({"what": what, "do": f"unset {registry.SWITCH}"})
    weights: dict[str, Any] | None = None
    try:
        weights = {"model": load().model, "hash": "verified"}
    except WeightsError as error:
        problems.append({"what": str(error), "do": "install melcap again"})
    devices = [
        {
            "name": f"cuda:{index}",
            "what": torch.cuda.get_device_name(index),
            "gib": round(torch.cuda.get_device_properties(index).total_memory / 2**30, 1),
        }
        for index in range(torch.cuda.device_count())
    ]
    data = {
        "melcap": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "torch": {"version": torch.__version__, "cuda": torch.version.cuda},
        "versions": versions,
        "threads": threads,
        "cores": cores,
        "devices": [{"name": "cpu", "what": processor()}, *devices],
        "backends": report,
        "weights": weights,
        "problems": problems,
        "notes": notes,
    }
    return data, _text(data)


def _text(data: dict[str, Any]) -> str:
    report = data["backends"]
    rows: list[tuple[str, object]] = [
        ("melcap", f"{data['melcap']}, Python {data['python']}, {data['platform']}"),
        ("torch", f"{data['torch']['version']}, CUDA {data['torch']['cuda'] or 'not built in'}"),
        ("packages", ", ".join(f"{k} {v or 'missing'}" for k, v in data["versions"].items())),
        ("threads", f"{data['threads']} on {data['cores']} cores"),
    ]
    for device in data["devices"]:
        memory = f", {device['gib']} GiB" if "gib" in device else ""
        rows.append((f"device {device['name']}", f"{device['what']}{memory}"))
    for name, reasons in report["available"].items():
        rows.append((f"backend {name}", "; ".join(reasons) if reasons else "ready"))
    chosen = (f"{name} on {kind}" for kind, name in report["chosen_by_auto"].items())
    rows.append(("backend auto", f"takes {', '.join(chosen)}"))
    for operation, names in report["operations"].items():
        rows.append((operation, f"has {', '.join(names)}"))
        for layer, dtypes in _by_layer(report["layers"].get(operation, ())).items():
            rows.append((f"  {layer}", dtypes))
    found = data["weights"]
    rows.append(("weights", f"{found['model']}, {found['hash']}" if found else "not usable"))
    lines = [columns(*rows), ""]
    for kind in ("problems", "notes"):
        lines += [f"{kind[:-1]}: {finding['what']}\n    {finding['do']}" for finding in data[kind]]
    lines.append("melcap works here" if not data["problems"] else "melcap does not work here")
    return "\n".join(lines)


def _by_layer(layers: Iterable[dict[str, str]]) -> dict[str, str]:
    """Return for each layer the code that runs it, by dtype."""
    found: dict[str, list[str]] = {}
    for row in layers:
        found.setdefault(row["layer"], []).append(f"{row['dtype']} {row['by']}")
    return {layer: ", ".join(dtypes) for layer, dtypes in found.items()}


def _advice(reason: str) -> str:
    for part, advice in ADVICE.items():
        if part in reason:
            return advice or _about_cuda()
    return "see docs/gpu.md"


def _about_cuda() -> str:
    if torch.version.cuda is None:
        return "with an NVIDIA GPU: install a CUDA build of torch (pytorch.org, Get started)"
    return (
        "with an NVIDIA GPU: check that nvidia-smi lists it and that CUDA_VISIBLE_DEVICES does not "
        "hide it"
    )
