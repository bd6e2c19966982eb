"""Options that commands share, and the codec that they ask for."""

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
    from melcap.audio_codec import AudioCodec


class Backend(str, Enum):
    """The implementations of the operations."""

    auto = "auto"
    torch = "torch"
    triton = "triton"


class QualityName(str, Enum):
    """The levels of quality of decoding."""

    fast = "fast"
    default = "default"
    best = "best"


class Format(str, Enum):
    """The formats of audio files that are written."""

    wav = "wav"
    flac = "flac"


def check_device(value: str | None) -> str | None:
    """Return the name of a device, or None; refuse any other value of the option."""
    if value is not None and not re.fullmatch(r"cpu|cuda(:\d{1,3})?", value):
        raise typer.BadParameter(f"{value!r} is not one of cpu, cuda, cuda:0, cuda:1, ...")
    return value


Inputs = Annotated[
    list[Path],
    typer.Argument(metavar="FILE...", help="Files, or folders to search for them; - is stdin."),
]
Out = Annotated[
    str | None,
    typer.Option(
        "--out",
        "-o",
        help="A folder, or a file if there is one input file; - is stdout. "
        "Default: beside the input.",
    ),
]
OutRequired = Annotated[
    str,
    typer.Option(
        "--out",
        "-o",
        help="A folder, or a .wav or .flac file if there is one input file; - is stdout.",
    ),
]
Weights = Annotated[
    Path | None, typer.Option(help="A weights file. Default: the built-in weights.")
]
Decoder = Annotated[
    Path | None,
    typer.Option(help="A weights file whose decoder to use. Default: that of the weights."),
]
QualityChoice = Annotated[
    QualityName,
    typer.Option(
        "--quality",
        help="Quality of decoding: the number of Griffin-Lim steps, which refine the phases.",
    ),
]
Device = Annotated[
    str,
    typer.Option(help="The device to compute on: cpu, cuda, cuda:1, ...", callback=check_device),
]
BackendChoice = Annotated[
    Backend,
    typer.Option(
        help="What runs the operations. auto: triton on a GPU where it can run, else torch."
    ),
]
AudioFormat = Annotated[
    Format | None,
    typer.Option("--format", help="Format of the audio. Default: the suffix of --out, or wav."),
]
SampleRate = Annotated[
    int | None,
    typer.Option(
        min=1000, max=768000, help="Sample rate of the audio, in Hz. Default: that of the original."
    ),
]
Compact = Annotated[
    bool,
    typer.Option(
        "--compact",
        help="Write smaller .melcap files, coded with the tokenizer's row tables.",
    ),
]
Processes = Annotated[
    int, typer.Option(min=1, help="Worker processes; 1 does everything in one process.")
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite files that exist.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the results as JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]


def split_names(text: str) -> list[str]:
    """Split a list at its commas, and leave out what is empty or occurs again."""
    return list(dict.fromkeys(name for name in text.split(",") if name))


@contextmanager
def open_codec(
    weights: Path | None,
    device: str,
    backend: Backend,
    quality: QualityName = QualityName.default,
    decoder: Path | None = None,
) -> Iterator[AudioCodec]:
    """Load the codec that the options ask for, and use their backend while the block runs.

    Raises:
        BackendError: the device or the backend is not available here, with every reason.
        WeightsError: the weights cannot be loaded.
    """
    import torch

    from melcap import load, use_backend

    if device != "cpu" and int(device.partition(":")[2] or 0) >= torch.cuda.device_count():
        raise BackendError(
            f"no device {device} here: torch sees {torch.cuda.device_count()} CUDA devices; run "
            "`melcap doctor` to see why, or use --device cpu"
        )
    with use_backend(backend.value):
        yield load(weights, device, quality=quality.value, decoder=decoder)
