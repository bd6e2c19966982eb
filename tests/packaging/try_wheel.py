"""Try a built wheel as a stranger would: `make dist`.

The script makes an environment of its own, installs the wheel there and, in an empty folder outside
the clone, encodes a file and decodes it. It also looks into the wheel: the package, its kernels and
its weights must be there, and neither tests nor recipes.

    python tests/packaging/try_wheel.py dist/melcap-0.1.0-py3-none-any.whl
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CLIP = ROOT / "examples" / "audio" / "speech.flac"
WEIGHTS = ROOT / "melcap" / "weights"
OF_TOKENIZER = [*WEIGHTS.glob("*.row-tables.safetensors"), *WEIGHTS.glob("*.predictor.safetensors")]
PARTS = (
    "melcap/__init__.py",
    "melcap/py.typed",
    "melcap/config/half-rate.json",
    "melcap/kernels/launch.py",
    "melcap/weights/melcap-lite.safetensors",
    "melcap/weights/melcap-lite.sha256",
    "melcap/weights/README.md",
    "melcap/weights/training-data.csv",
    *(f"melcap/weights/{path.name}" for path in OF_TOKENIZER),
)
USE = """
import melcap, numpy
from melcap import audio
wave, rate = audio.read(r"{clip}")
codec = melcap.load()
codes = codec.encode(wave, rate)
decoded = codec.decode(codes)
assert decoded.shape == wave.shape, (decoded.shape, wave.shape)
assert melcap.Codes.load("speech.melcap").tokens.equal(codes.tokens), "files and arrays differ"
import melcap.kernels
"""


def main(wheel: Path) -> None:
    """Try one wheel and say what was tried.

    Raises:
        SystemExit: where a part is missing, where one is too much, and where a command fails.
    """
    names = zipfile.ZipFile(wheel).namelist()
    if missing := [part for part in PARTS if part not in names]:
        sys.exit(f"{wheel} lacks {', '.join(missing)}")
    info = f"{'-'.join(wheel.name.split('-')[:2])}.dist-info/"
    if foreign := [name for name in names if not name.startswith(("melcap/", info))]:
        sys.exit(f"{wheel} holds {', '.join(foreign[:5])}")
    if trained := [name for name in names if name.endswith(".mel-decoder.safetensors")]:
        sys.exit(f"{wheel} holds {trained[0]}, which only training needs")
    with tempfile.TemporaryDirectory(prefix="melcap-dist-") as folder:
        place = Path(folder)
        run("-m", "venv", "--without-pip", "venv", cwd=place, python=sys.executable)
        python = place / "venv" / "bin" / "python"
        pip = ("-m", "pip", "--python", python, "--quiet", "--disable-pip-version-check")
        flags = ("--no-compile", *os.environ.get("PIP_FLAGS", "").split())
        constraints = ("-c", ROOT / "constraints.txt")
        run(*pip, "install", *flags, *constraints, wheel, cwd=place, python=sys.executable)
        (place / "empty").mkdir()
        for arguments in (
            ("-m", "melcap", "--version"),
            ("-m", "melcap", "encode", CLIP, "--out", "speech.melcap"),
            ("-m", "melcap", "decode", "speech.melcap", "--out", "speech.wav"),
            ("-m", "melcap", "info", "speech.melcap"),
            ("-m", "melcap", "encode", CLIP, "--out", "compact.melcap", "--compact"),
            ("-c", USE.format(clip=CLIP)),
        ):
            run(*arguments, cwd=place / "empty", python=python)
        torch = run("-c", "import torch; print(torch.__version__)", cwd=place, python=python)
    size = wheel.stat().st_size / 1e6
    print(f"{wheel.name}: {len(names)} files, {size:.1f} MB, tried with torch {torch.strip()}")


def run(*arguments: str | Path, cwd: Path, python: str | Path) -> str:
    """Run an interpreter, without the settings of this one, and return what it printed."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [str(python), *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)[:200]} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return done.stdout


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
