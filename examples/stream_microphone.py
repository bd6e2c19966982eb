"""Stream live audio through the codec, 100 ms at a time, from a microphone to a wav file.

    python stream_microphone.py --seconds 10           # the microphone; pip install sounddevice
    python stream_microphone.py --file clip.flac       # a file instead

Only tokens pass from the encoder to the decoder; an application would send them over a network. The
script prints the latency of the codec itself, which looks ahead, and the time of computing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter

import numpy as np
import numpy.typing as npt

import melcap
from melcap.audio import AudioReader, AudioWriter

PIECE_SECONDS = 0.1
MICROPHONE_RATE = 44100

Piece = npt.NDArray[np.float32]


def from_file(path: Path) -> Iterator[tuple[Piece, int]]:
    """Yield pieces of a file, float32 [samples], mixed down to mono, and their rate in Hz."""
    with AudioReader(path) as reader:
        for block in reader.blocks(round(PIECE_SECONDS * reader.sample_rate)):
            yield block.mean(axis=0), reader.sample_rate


def from_microphone(seconds: float) -> Iterator[tuple[Piece, int]]:
    """Yield pieces from the microphone, float32 [samples], and their rate in Hz."""
    try:
        import sounddevice
    except (ImportError, OSError) as error:  # OSError: without the PortAudio library
        sys.exit(f"no microphone ({error}): pip install sounddevice, or name a --file")
    size = round(PIECE_SECONDS * MICROPHONE_RATE)
    with sounddevice.InputStream(MICROPHONE_RATE, channels=1, dtype="float32") as stream:
        for _ in range(round(seconds / PIECE_SECONDS)):
            samples, _ = stream.read(size)
            yield samples[:, 0].copy(), MICROPHONE_RATE


def stream(pieces: Iterator[tuple[Piece, int]], out: Path, codec: melcap.Codec) -> None:
    """Encode and decode pieces as they come, write the audio, and print the latency."""
    first, rate = next(pieces)
    encoder = melcap.StreamEncoder(codec, rate)
    decoder = melcap.StreamDecoder(codec, rate)
    taken, given, tokens_sent, busy, first_after = 0, 0, 0, [], None
    with AudioWriter(out, rate, channels=1) as writer:
        piece: Piece | None = first
        while piece is not None:
            began = perf_counter()
            tokens = encoder.push(piece)  # int32 [1, 12, columns that became ready]
            wave = decoder.push(tokens).cpu().numpy()  # float32 [1, samples that became ready]
            busy.append(perf_counter() - began)
            writer.write(wave)
            taken, given = taken + len(piece), given + wave.shape[1]
            tokens_sent += tokens.numel()
            if given and first_after is None:
                first_after = taken / rate
            piece, _ = next(pieces, (None, rate))
        tokens = encoder.flush()
        writer.write(decoder.push(tokens).cpu().numpy())
        writer.write(decoder.flush(taken).cpu().numpy())
        tokens_sent += tokens.numel()

    seconds = taken / rate
    column = codec.config.column_samples / codec.config.mel.sample_rate
    latency = column + encoder.latency + decoder.latency
    print(f"{out}: {seconds:.2f} s, {tokens_sent} tokens, {tokens_sent / seconds:.1f} a second")
    print(
        f"latency by design: {latency:.3f} s (column {column:.3f}, encoder {encoder.latency:.3f}, "
        f"decoder {decoder.latency:.3f})"
    )
    if first_after is not None:
        print(f"the first samples came out after {first_after:.1f} s of input")
    print(
        f"computing, for each {1000 * PIECE_SECONDS:.0f} ms: {1000 * np.median(busy):.1f} ms, at "
        f"most {1000 * max(busy):.1f} ms"
    )


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--file", type=Path, help="an audio file instead of the microphone")
    parser.add_argument("--seconds", type=float, default=10, help="how long to record")
    parser.add_argument("--out", type=Path, default=Path("streamed.wav"))
    parser.add_argument("--weights", type=Path, help="a weights file instead of the default one")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ...")
    arguments = parser.parse_args()

    codec = melcap.load(arguments.weights, arguments.device)
    file = arguments.file
    stream(from_file(file) if file else from_microphone(arguments.seconds), arguments.out, codec)


if __name__ == "__main__":
    main()
