"""Assemble the web page: `python web/assemble.py`.

The graphs of the weights that ship are exported once, to `web/models/`, and again when the weights
or what exports them change. The page goes to `web/dist/`, which any static host serves.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import html
import json
import re
import shutil
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import melcap
from melcap.io.container import row_tables

WEB = Path(__file__).resolve().parent
ROOT = WEB.parent
MODELS, DIST, RUNTIME = WEB / "models", WEB / "dist", WEB / "node_modules/onnxruntime-web/dist"
CLIPS = ROOT / "examples" / "audio"
EXPORTERS = ("torch", "onnx", "onnxscript", "onnxruntime")
"""The packages whose versions change the graphs."""
SOURCES = ("config", "model", "onnx", "ops")
"""The parts of melcap that change the graphs."""


def main() -> None:
    """Read the command line, and assemble."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--docs", help="link the documentation at this address")
    arguments = parser.parse_args()
    export_models()
    assemble_page(arguments.docs)


def export_models() -> None:
    """Export the graphs to `web/models/`, unless those there have the same key."""
    from melcap.onnx import export

    codec = melcap.load()
    key, stamp = _key(codec.model), MODELS / "key.txt"
    if stamp.exists() and stamp.read_text() == key:
        return
    print(f"exporting {codec.model} to {MODELS.relative_to(ROOT)}/")
    shutil.rmtree(MODELS, ignore_errors=True)
    MODELS.mkdir()
    with tempfile.TemporaryDirectory() as folder:
        paths = export(codec, folder, ort=True)
        shutil.copy(paths["facts"], MODELS)
        for name in ("encoder", "decoder"):
            _gzip(paths[name].read_bytes(), MODELS / f"{name}.ort.gz")
    tables = row_tables.find(codec.tokenizer_id)
    _gzip(tables.frequencies.astype("<u2").tobytes(), MODELS / "row-tables.bin.gz")
    stamp.write_text(key)


def assemble_page(docs: str | None) -> None:
    """Copy page, package, runtime, graphs and clips to `web/dist/`, and print what they weigh.

    Args:
        docs: the address of the documentation, which the page links; None for no link.
    """
    if not RUNTIME.exists():
        sys.exit("onnxruntime-web is not here: run npm ci in web/")
    shutil.rmtree(DIST, ignore_errors=True)
    shutil.copytree(WEB / "demo", DIST / "demo", ignore=shutil.ignore_patterns("index.html"))
    shutil.copytree(WEB / "src", DIST / "src")
    shutil.copytree(MODELS, DIST / "models", ignore=shutil.ignore_patterns("key.txt"))
    shutil.copytree(CLIPS, DIST / "clips", ignore=shutil.ignore_patterns("*.md"))
    # as text, which every host lets a browser show
    shutil.copy(CLIPS / "LICENCES.md", DIST / "clips" / "LICENCES.txt")
    (DIST / "runtime").mkdir()
    shutil.copy(RUNTIME / "ort.wasm.bundle.min.mjs", DIST / "runtime")
    wasm = "ort-wasm-simd-threaded.wasm"
    _gzip((RUNTIME / wasm).read_bytes(), DIST / "runtime" / f"{wasm}.gz")
    (DIST / "index.html").write_text(_page(docs), encoding="utf-8")
    for path in sorted(DIST.rglob("*.*z")):
        print(f"{path.stat().st_size / 1e6:6.2f} MB  {path.relative_to(DIST)}")
    for name, size in sizes().items():
        print(f"{size / 1e6:6.2f} MB  {name}, gzipped")


def _page(docs: str | None) -> str:
    """Return the page with the size of its download and the link to the documentation."""
    page = (WEB / "demo" / "index.html").read_text(encoding="utf-8")
    parts = sizes()
    page = page.replace("%DOWNLOAD%", f"{(parts['models'] + parts['runtime']) / 1e6:.0f}")
    if docs:
        return page.replace("%DOCS%", html.escape(docs))
    return re.sub(r'\s*<p id="docs">.*?</p>', "", page)


def sizes() -> dict[str, int]:
    """Return the gzipped bytes of each part of the page, and of all of them."""
    parts: dict[str, int] = {}
    for path in sorted(DIST.rglob("*")):
        if path.is_file():
            part = path.relative_to(DIST).parts[0] if path.parent != DIST else "page"
            data = path.read_bytes()
            packed = len(data) if path.suffix == ".gz" else len(gzip.compress(data))
            parts[part] = parts.get(part, 0) + min(packed, len(data))
    return {**parts, "all": sum(parts.values())}


def _key(model: str) -> str:
    """Return what decides the graphs: weights, sources and packages, as one line of JSON."""
    digest = hashlib.sha256()
    for folder in SOURCES:
        for path in sorted((ROOT / "melcap" / folder).rglob("*.py")):
            digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    packages = {name: version(name) for name in EXPORTERS}
    return json.dumps({"model": model, "sources": digest.hexdigest(), **packages})


def _gzip(data: bytes, path: Path) -> None:
    path.write_bytes(gzip.compress(data, mtime=0))


if __name__ == "__main__":
    main()
