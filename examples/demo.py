"""Encode and decode clips, to hear and see what the codec does to them.

    python examples/demo.py                                the clips of examples/audio
    python examples/demo.py song.mp3 talk.wav --out heard  other clips

The folder `demo` (or --out) receives three files for each clip: the tokens (.melcap), the decoded
audio (.wav) and a picture of both (.png). A table shows the bit rate, the speed in times real time,
and the log-spectral distance to the original, 0 for a perfect copy.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

import melcap
from melcap import audio
from melcap.audio import AUDIO_SUFFIXES
from melcap.errors import MelcapError
from melcap.evaluation.measures.spectral import log_spectral_distance
from melcap.plot.spectrogram import write_picture

CLIPS = Path(__file__).parent / "audio"
RUNS = 3
COLUMNS = ("clip", "seconds", "bytes", "kbps", "encode", "decode", "distance")


def demo(clips: list[Path], out: Path, codec: melcap.Codec) -> None:
    """Write the files of all clips, and print the table."""
    out.mkdir(parents=True, exist_ok=True)
    table = Table(*COLUMNS, caption="speed in times real time; log-spectral distance, 0 best")
    for column in table.columns[1:]:
        column.justify = "right"
    for clip in track(clips, "round trip", console=Console(stderr=True), transient=True):
        table.add_row(*round_trip(clip, out / f"{clip.stem}.melcap", codec))
    console = Console()
    console.print(f"{codec.model} on {torch.get_num_threads()} threads", highlight=False)
    console.print(table)
    originals = sorted({str(clip.parent) for clip in clips})
    print(f"Listen: {out}/*.wav, against {', '.join(originals)}; look: {out}/*.png")


def round_trip(clip: Path, target: Path, codec: melcap.Codec) -> tuple[str, ...]:
    """Write the files of one clip, and return its row of the table."""
    encoded = melcap.encode_file(clip, target, codec, force=True)
    decoded = melcap.decode_file(target, target.with_suffix(".wav"), codec, force=True)
    before, rate = audio.read(clip)  # float32 [channels, samples]
    after, _ = audio.read(decoded.target)
    codes = codec.encode(before, rate)
    write_picture(
        target.with_suffix(".png"),
        before[0],
        after[0],
        codes[0].numpy(),
        rate,
        f"{clip.name}, {encoded.kbps:.2f} kbps",
        codebook_size=codec.vocab_size,
        column_seconds=1 / codec.frame_rate,
    )
    distances = [log_spectral_distance(*pair, rate) for pair in zip(before, after, strict=True)]
    return (
        clip.name,
        f"{encoded.seconds:.2f}",
        str(encoded.file_bytes),
        f"{encoded.kbps:.2f}",
        f"{encoded.seconds / seconds_of(lambda: codec.encode(before, rate)):.0f}x",
        f"{encoded.seconds / seconds_of(lambda: codec.decode(codes)):.0f}x",
        f"{sum(distances) / len(distances):.2f}",
    )


def seconds_of(work: Callable[[], object]) -> float:
    """Return the median time of a few calls, after one call that fills the caches."""
    work()
    seconds = []
    for _ in range(RUNS):
        began = perf_counter()
        work()
        seconds.append(perf_counter() - began)
    return median(seconds)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("clips", type=Path, nargs="*", help="default: those of examples/audio")
    parser.add_argument("--out", "-o", type=Path, default=Path("demo"), help="folder to write to")
    parser.add_argument("--weights", type=Path, help="a weights file instead of the default one")
    arguments = parser.parse_args()

    clips = arguments.clips or sorted(
        path for path in CLIPS.glob("*") if path.suffix in AUDIO_SUFFIXES
    )
    if not clips:
        parser.error(f"{CLIPS} holds no audio: name the files to encode")
    if len({clip.stem for clip in clips}) < len(clips):
        parser.error("two clips have the same name, and so would their decoded files")
    try:
        demo(clips, arguments.out, melcap.load(arguments.weights))
    except (MelcapError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
