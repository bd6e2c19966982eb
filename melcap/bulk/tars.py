"""The audio files in a tar, compressed or not."""

from __future__ import annotations

import os
import tarfile
from collections import Counter
from collections.abc import Iterator
from typing import Any, cast

from melcap.bulk.entry import (
    Entry,
    Found,
    PassedOver,
    Refused,
    Unlisted,
    absolute,
    clip_id,
    kind_of,
    text,
)
from melcap.bulk.opening import READ_ERRORS, Stream, unpacked
from melcap.io.readers import AUDIO_SUFFIXES

_PADDING = 1 << 20
"""Zeros behind the end of a tar that are looked through; tar itself writes up to 10 KiB."""
_GLOBAL_HEADERS = 1000


def in_tar(path: str, name: str) -> Iterator[Found]:
    """Give every audio file of the tar `path`, which is called `name` in ids.

    Of a member that is there twice the first is taken; the plan refuses the second by name.
    """
    others: Counter[str] = Counter()
    try:
        with unpacked(path) as file, tarfile.open(fileobj=cast(Any, file), mode="r:") as shard:
            for member in shard:
                if member.isdir():
                    pass
                elif not member.isfile():
                    others["links and devices in tars"] += 1
                elif not is_audio(member.name):
                    others[kind_of(member.name)] += 1
                elif member.issparse():
                    source = text(f"{absolute(path)}/{member.name}")
                    reason = f"{source} is a sparse file in its tar; unpack the tar"
                    yield Refused(clip_id(f"{name}/{member.name}"), source, reason)
                else:
                    place = (member.offset_data, member.size, member.name)
                    yield Entry(clip_id(f"{name}/{member.name}"), absolute(path), *place)
                shard.members = []  # type: ignore[attr-defined]  # else it remembers them all
                if len(shard.pax_headers) > _GLOBAL_HEADERS:
                    raise tarfile.ReadError("too many global headers")
            check_end(file, shard.offset)
    except (*READ_ERRORS, tarfile.TarError, RecursionError) as error:
        said = str(error).partition("\n")[0]
        yield Unlisted(
            text(absolute(path)), f"{text(path)} is not a tar, or a damaged one ({said})"
        )
    yield from (PassedOver(*other) for other in others.items())


def check_end(file: Stream, offset: int) -> None:
    """Refuse a tar that goes on where `tarfile` stops: it takes a damaged header for the end."""
    file.seek(offset)
    block = file.read(tarfile.BLOCKSIZE)
    if 0 < len(block) < tarfile.BLOCKSIZE:
        raise tarfile.ReadError("unexpected end of data")
    if (block + file.read(_PADDING)).strip(b"\0"):
        raise tarfile.ReadError("a damaged header, or another tar behind its end")


def is_audio(name: str) -> bool:
    """Tell whether a file is called like audio, and is not hidden."""
    return name.lower().endswith(AUDIO_SUFFIXES) and not os.path.basename(name).startswith(".")
