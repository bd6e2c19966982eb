"""`detokenize`: the way back, from a token set to audio files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from melcap.bulk.entry import file_key
from melcap.bulk.rows import TokenRow
from melcap.bulk.shards import read_rows, token_files
from melcap.codec import Codec
from melcap.errors import MelcapError
from melcap.transcode import check_model, write_audio


@dataclass(frozen=True)
class Heard:
    """The fate of a row; or, where there is an `error`, of a row or the rest of a file."""

    id: str
    target: Path
    seconds: float = 0.0
    done_before: bool = False
    error: str = ""


def detokenize(
    sets: Sequence[Path],
    out: Path,
    codec: Codec,
    *,
    suffix: str = ".wav",
    sample_rate: int | None = None,
    force: bool = False,
) -> Iterator[Heard]:
    """Decode every row of the token sets to `out/ID.wav`, going on past those that cannot be.

    Two rows never share a file, where case and accents do not count: the second is an error. A file
    that is there already is left as it is, as it was whole when it got its name: a run that was
    stopped goes on. `force` writes them all.

    Args:
        sets: folders, Parquet shards, tars or `.melcap` files.
        sample_rate: of the audio; None for each clip's own, with its exact length.

    Raises:
        InputError: where there is no token set, before anything is written.
    """
    taken: set[str] = set()
    files = [(file, each) for each in sets for file in token_files(each)]
    for file, given in files:
        folder = given if given.is_dir() else given.parent
        try:
            for row in read_rows(file, folder):
                target = out / (row.id if row.id.endswith(suffix) else f"{row.id}{suffix}")
                key = file_key(str(target))
                if key in taken:
                    error = f"{row.id}: {target} is the file of another row; nothing is written"
                    yield Heard(row.id, target, error=error)
                    continue
                taken.add(key)
                yield _hear(row, target, out, codec, sample_rate, force)
        except MelcapError as error:
            yield Heard(str(file), out, error=str(error))


def _hear(
    row: TokenRow,
    target: Path,
    out: Path,
    codec: Codec,
    sample_rate: int | None,
    force: bool,
) -> Heard:
    try:
        if not target.resolve().is_relative_to(out.resolve()):
            raise MelcapError(f"{row.id}: leads out of {out}; nothing is written for it")
        if target.exists() and not force:
            return Heard(row.id, target, row.seconds, done_before=True)
        check_model(row.id, row.header, codec)
        target.parent.mkdir(parents=True, exist_ok=True)
        rate = sample_rate or row.header.sample_rate
        write_audio(target, row.header, row.grid, codec, rate)
    except MelcapError as error:
        return Heard(row.id, target, error=str(error))
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        reason = getattr(error, "strerror", None) or error
        return Heard(row.id, target, error=f"{row.id!a}: its file cannot be written: {reason}")
    return Heard(row.id, target, row.seconds)
