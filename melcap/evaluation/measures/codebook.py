"""How much of a codebook is used: over a clip, a class, or a whole training set.

    python -m melcap.evaluation.measures.codebook DATA... [--weights FILE.safetensors] [--clips N] [--json]

DATA is an audio cache that training made, a tar shard, a folder of audio or a manifest; the table
has a line for each class and one for all of them together. Few tokens cannot use many entries, and
cannot have more bits of entropy than log2 of their number: compare figures of as many tokens.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import typer

from melcap.codec import Codec
from melcap.errors import InputError

Counts: TypeAlias = npt.NDArray[np.int64]
"""[codebook size]: how often each entry was met."""
Piece: TypeAlias = tuple[str, Callable[[], npt.NDArray[np.float32]]]
"""The class of a clip, and what reads it: float32 [samples] at 44.1 kHz."""

RATE = 44100


@dataclass(frozen=True)
class CodebookStatistics:
    """`usage`: the fraction of entries met at least once. `entropy`: bits per token, at most
    log2(size), of the entries' frequencies. `tokens`: over so many."""

    usage: float
    entropy: float
    tokens: int


def codebook_statistics(tokens: npt.NDArray[np.integer[Any]], size: int) -> CodebookStatistics:
    """Usage and entropy of a codebook of `size` entries over `tokens` (any shape, 0 <= t < size).

    Raises `InputError` where there is no token, or one is out of range.
    """
    return statistics_of(count_tokens(tokens, size))


def count_tokens(tokens: npt.NDArray[np.integer[Any]], size: int) -> Counts:
    """How often each of `size` entries is among `tokens`; raises as `codebook_statistics`."""
    flat = np.asarray(tokens).reshape(-1)
    if not flat.size or flat.min() < 0 or flat.max() >= size:
        raise InputError(f"codebook_statistics: needs tokens, all of them in 0..{size - 1}")
    return np.bincount(flat, minlength=size)


def statistics_of(counts: Counts) -> CodebookStatistics:
    """Usage and entropy of a codebook whose entries were met so often, at least once in all."""
    total = int(counts.sum())
    share = counts[counts > 0] / total
    entropy = float(-(share * np.log2(share)).sum())
    return CodebookStatistics(float((counts > 0).mean()), entropy, total)


def pack_counts(counts: Counts) -> str:
    """ASCII, about 2 kB for 10 s of audio; `unpack_counts` is the inverse."""
    return base64.b85encode(zlib.compress(counts.astype("<u4").tobytes(), 9)).decode()


def unpack_counts(text: str) -> Counts:
    return np.frombuffer(zlib.decompress(base64.b85decode(text)), "<u4").astype(np.int64)


def count_by_class(codec: Codec, pieces: Iterable[Piece]) -> dict[str, Counts]:
    """Encode every clip, and count its tokens for its class."""
    size = codec.config.tokenizer.codebook_size
    counts: dict[str, Counts] = defaultdict(lambda: np.zeros(size, np.int64))
    for kind, read in pieces:
        for tokens in codec.encode(read(), RATE).flatten():
            counts[kind] += count_tokens(tokens.cpu().numpy(), size)
    return dict(counts)


def pieces_of(data: Iterable[Path]) -> list[Piece]:
    """Every clip of the sources, whole; raises `InputError` for one that holds none."""
    from melcap.evaluation.clips import find_clips
    from melcap.training.data import AudioCache

    pieces: list[Piece] = []
    for source in data:
        if (source / "index.json").is_file():
            cache = AudioCache(source)
            pieces += [(clip.label, partial(cache.wave, clip)) for clip in cache.clips]
        else:
            pieces += [(clip.kind, partial(clip.read, None)) for clip in find_clips(source)]
    return pieces


def choose(pieces: list[Piece], count: int | None) -> list[Piece]:
    """So many of them, drawn evenly and always the same; all of them for None."""
    if count is None or count >= len(pieces):
        return pieces
    drawn = np.random.default_rng(0).choice(len(pieces), count, replace=False)
    return [pieces[index] for index in sorted(drawn)]


def main(
    data: Annotated[
        list[Path], typer.Argument(metavar="DATA...", help="Audio caches, tars, folders or CSVs.")
    ],
    weights: Annotated[
        Path | None, typer.Option(help="Weights file instead of the built-in one.")
    ] = None,
    clips: Annotated[
        int | None, typer.Option(min=1, help="Only so many clips, drawn at random.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
) -> None:
    """Usage and entropy of the codebook over a whole data set."""
    from rich.console import Console
    from rich.progress import track

    from melcap.cli import batch
    from melcap.pretrained import load

    with batch.sentences():
        codec = load(weights)
        pieces = choose(pieces_of(data), clips)
        console = Console(stderr=True)
        counts = count_by_class(
            codec,
            track(pieces, "clips", console=console, disable=not console.is_terminal),
        )
    lines = {kind: asdict(statistics) for kind, statistics in _lines(counts)}
    if as_json:
        typer.echo(json.dumps({"model": codec.model, "clips": len(pieces), "classes": lines}))
        return
    typer.echo("| class | tokens | usage | entropy, bits |\n| --- | --- | --- | --- |")
    for kind, line in lines.items():
        typer.echo(f"| {kind} | {line['tokens']} | {line['usage']:.2%} | {line['entropy']:.3f} |")


def _lines(counts: dict[str, Counts]) -> Iterator[tuple[str, CodebookStatistics]]:
    yield from ((kind, statistics_of(counts[kind])) for kind in sorted(counts))
    yield "all", statistics_of(np.sum(list(counts.values()), axis=0))


if __name__ == "__main__":
    typer.run(main)
