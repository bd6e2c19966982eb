"""The audio files in a tar, compressed or not."""

from __future__ import annotations

import tarfile
from collections import Counter
from collections.abc import Iterator
from typing import Any, cast

from melcap.bulk.files.names import absolute, clip_id, text
from melcap.bulk.files.streams import READ_ERRORS, check_tar_end, unpacked
from melcap.bulk.manifests.entries import Entry, Found, PassedOver, Refused, Unlisted
from melcap.bulk.manifests.passed_over import kind_of
from melcap.io.suffixes import is_audio

_GLOBAL_HEADERS = 1000


def in_tar(path: str, name: str) -> Iterator[Found]:
    """Yield every audio file of a tar.

    If a member occurs twice, both are given; the plan of the journal refuses the second by name.

    Args:
        path: the tar, a file or URL.
        name: the name of the tar in the ids of its clips.
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
                shard.members = []  # type: ignore[attr-defined]  # or it would hold them all
                if len(shard.pax_headers) > _GLOBAL_HEADERS:
                    raise tarfile.ReadError("too many global headers")
            check_tar_end(file, shard.offset)
    except (*READ_ERRORS, tarfile.TarError, RecursionError) as error:
        said = str(error).partition("\n")[0]
        yield Unlisted(
            text(absolute(path)), f"{text(path)} is not a tar, or a damaged one ({said})"
        )
    yield from (PassedOver(*other) for other in others.items())
