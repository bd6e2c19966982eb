"""The options that the commands share, and the codec that they ask for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from melcap.errors import BackendError

if TYPE_CHECKING:
    from melcap.codec import Codec


class Backend(str, Enum):
    auto = "auto"
    torch = "torch"
    triton = "triton"


class QualityName(str, Enum):
    fast = "fast"
    default = "default"
    best = "best"


class Format(str, Enum):
    wav = "wav"
    flac = "flac"


def _device(value: str) -> str:
    if not re.fullmatch(r"cpu|cuda(:\d{1,3})?", value):
        raise typer.BadParameter(f"{value!r} is none of cpu, cuda, cuda:0, cuda:1, ...")
    return value


Inputs = Annotated[
    list[Path],
    typer.Argument(
        metavar="FILE...", help="Files, and folders to be searched for them; - is stdin."
    ),
]
Out = Annotated[
    str | None,
    typer.Option(
        "--out",
        "-o",
        help="A file, for one input file, or a folder; - is stdout. Default: beside the input.",
    ),
]
OutRequired = Annotated[
    str,
    typer.Option(
        "--out", "-o", help="A .wav or .flac file, for one input file, or a folder; - is stdout."
    ),
]
Weights = Annotated[Path | None, typer.Option(help="Weights file instead of the built-in one.")]
Decoder = Annotated[
    Path | None,
    typer.Option(help="Weights file whose decoder takes the place of that of the weights."),
]
QualityChoice = Annotated[
    QualityName,
    typer.Option("--quality", help="Of decoding: the steps that search for the phases."),
]
Device = Annotated[
    str, typer.Option(help="Where to compute: cpu, cuda, cuda:1, ...", callback=_device)
]
BackendChoice = Annotated[Backend, typer.Option(help="What runs the operations.")]
AudioFormat = Annotated[
    Format | None,
    typer.Option("--format", help="Of the audio to write; default: wav, or as --out says."),
]
SampleRate = Annotated[
    int | None,
    typer.Option(min=1000, max=768000, help="Of the audio to write, in Hz; default: as it was."),
]
Compact = Annotated[
    bool,
    typer.Option(
        "--compact",
        help="Smaller .melcap files, coded by the tokenizer's row tables.",
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Replace files that exist.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the results as JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]


@contextmanager
def open_codec(
    weights: Path | None,
    device: str,
    backend: Backend,
    quality: QualityName = QualityName.default,
    decoder: Path | None = None,
) -> Iterator[Codec]:
    """The codec that the options ask for, on the device and backend that they ask for."""
    import torch

    from melcap import load, use_backend

    if device != "cpu" and int(device.partition(":")[2] or 0) >= torch.cuda.device_count():
        raise BackendError(
            f"no device {device} here: torch sees {torch.cuda.device_count()} CUDA devices; "
            "`melcap doctor` says why, --device cpu does without"
        )
    with use_backend(backend.value):
        yield load(weights, device, quality=quality.value, decoder=decoder)
