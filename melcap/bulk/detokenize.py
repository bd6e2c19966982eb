"""Decode token sets to audio files: the function behind `melcap detokenize`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from melcap.audio_codec import AudioCodec
from melcap.bulk.files.names import file_key
from melcap.bulk.token_sets.rows import TokenRow
from melcap.bulk.token_sets.shards import read_rows, token_files
from melcap.errors import MelcapError
from melcap.transcode import check_model, write_audio


@dataclass(frozen=True)
class DecodedRow:
    """The outcome of a row, or with an `error` that of a row or of the rest of a file.

    Attributes:
        id: the id of the row, or the path of a file that cannot be read.
        target: the audio file.
        seconds: the length of the clip.
        done_before: whether the file existed and was left as it is.
        error: the reason why nothing was written, or "".
    """

    id: str
    target: Path
    seconds: float = 0.0
    done_before: bool = False
    error: str = ""


def detokenize(
    sets: Sequence[Path],
    out: Path,
    codec: AudioCodec,
    *,
    suffix: str = ".wav",
    sample_rate: int | None = None,
    force: bool = False,
) -> Iterator[DecodedRow]:
    """Decode every row of token sets to `out/ID.wav`; a row that fails does not stop the others.

    Two rows never share a file, even if their names differ only in case or in the encoding of
    accents: the second row is an error. A file that exists is left as it is, because files get
    their names only when they are complete. So a run that was stopped continues.

    Args:
        sets: folders, Parquet shards, tars or `.melcap` files.
        out: the folder for the audio.
        codec: the codec that decodes.
        suffix: the suffix of the audio files, which gives their format.
        sample_rate: the rate of the audio in Hz. None for each clip's own, with its exact length.
        force: whether to write files again that exist.

    Yields:
        The outcome of each row.

    Raises:
        InputError: if there is no token set, before anything is written.
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
                    yield DecodedRow(row.id, target, error=error)
                    continue
                taken.add(key)
                yield _decode(row, target, out, codec, sample_rate, force)
        except MelcapError as error:
            yield DecodedRow(str(file), out, error=str(error))


def _decode(
    row: TokenRow,
    target: Path,
    out: Path,
    codec: AudioCodec,
    sample_rate: int | None,
    force: bool,
) -> DecodedRow:
    try:
        if not target.resolve().is_relative_to(out.resolve()):
            raise MelcapError(f"{row.id}: leads out of {out}; nothing is written for it")
        if target.exists() and not force:
            return DecodedRow(row.id, target, row.seconds, done_before=True)
        check_model(row.id, row.header, codec)
        target.parent.mkdir(parents=True, exist_ok=True)
        rate = sample_rate or row.header.sample_rate
        write_audio(target, row.header, row.grid, codec, rate)
    except MelcapError as error:
        return DecodedRow(row.id, target, error=str(error))
    except (OSError, ValueError) as error:  # ValueError: not the name of a file
        reason = getattr(error, "strerror", None) or error
        error_text = f"{row.id!a}: its file cannot be written: {reason}"
        return DecodedRow(row.id, target, error=error_text)
    return DecodedRow(row.id, target, row.seconds)
