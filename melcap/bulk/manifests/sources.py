"""The search for clips: files, folders, globs, manifests, tars, and URLs of all of them."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from melcap.bulk import INSTALL
from melcap.bulk.files.names import absolute, clip_id, is_url, text
from melcap.bulk.manifests.entries import Entry, Found, PassedOver, Refused, Unlisted
from melcap.bulk.manifests.manifest import in_manifest
from melcap.bulk.manifests.passed_over import in_words, kind_of
from melcap.bulk.manifests.tars import in_tar
from melcap.errors import InputError
from melcap.extras import import_extra
from melcap.io.files import irregular
from melcap.io.suffixes import AUDIO_SUFFIXES, MANIFEST_SUFFIXES, TAR_SUFFIXES, is_audio

_IRREGULAR = "not regular files (pipes, sockets, devices)"


def find(sources: Sequence[str], skip: str = "", keep: Sequence[str] = ()) -> Iterator[Found]:
    """Yield every clip of the sources in a fixed order, and what was refused or passed over.

    A source is one of these:

    - an audio file, or any other file that is not a tar or a manifest;
    - a folder, searched recursively for audio files and tars; links are followed, and a folder is
      entered once;
    - a glob (`**` for folders), a tar, or a manifest (see `melcap.bulk.manifests.manifest`);
    - a URL of any of them that fsspec opens.

    Names that begin with a dot are passed over. A source that holds no clip is `Unlisted`.

    Args:
        sources: paths, globs and URLs.
        skip: a folder that is not searched.
        keep: the columns of the manifests whose values are kept with their clips.

    Raises:
        InputError: for a source that does not exist, before anything is yielded; for a manifest
            that cannot be read or lacks a column to keep; or if no source holds a clip.
    """
    if keep and not any(map(_may_be_manifest, sources)):
        raise InputError(
            f"--keep {','.join(keep)} names columns of a manifest, but there is no manifest among "
            "the sources"
        )
    # Every source is looked up before the first one is searched, so that one that does not exist
    # is noticed at once.
    searches = [_search_of(source, skip, keep) for source in sources]
    empty: list[Unlisted] = []
    for source, search in zip(sources, searches, strict=True):
        passed: Counter[str] = Counter()
        nothing = True
        for each in search:
            if isinstance(each, PassedOver):
                passed[each.kind] += each.count
            else:
                nothing = False
                yield each
        yield from (PassedOver(*other) for other in passed.items())
        if nothing:
            there = f"it has {in_words(passed)}" if passed else "it is empty"
            wanted = ", ".join((*AUDIO_SUFFIXES, *TAR_SUFFIXES))
            reason = f"{text(source)} holds no audio file ({wanted}): {there}"
            if any(kind.endswith(MANIFEST_SUFFIXES) for kind in passed):
                reason += "; a manifest must be named itself, or by a glob that ends in its suffix"
            empty.append(Unlisted(text(absolute(source)), reason))
    if len(empty) == len(sources):
        raise InputError("; ".join(each.reason for each in empty) or "there is no source")
    yield from empty


def _may_be_manifest(source: str) -> bool:
    return source.lower().endswith(MANIFEST_SUFFIXES)


def _search_of(source: str, skip: str, keep: Sequence[str]) -> Iterator[Found]:
    """Return the search of a source, which begins when the first result is asked for.

    Raises:
        InputError: for a source that does not exist, or is a pipe or device.
    """
    if is_url(source):
        return _search_of_url(source, keep)
    if os.path.isdir(source):
        return _in_folder(source, skip)
    if os.path.exists(source):
        if what := irregular(source):
            raise InputError(f"{source} is {what}, not a regular file")
        return _named(source, source, keep)
    if glob.has_magic(source):
        matches = sorted(glob.glob(source, recursive=True))
        if not matches:
            raise InputError(f"{source} matches no file")
        return _in_matches(matches, skip, keep if _may_be_manifest(source) else None)
    if os.path.islink(source):
        raise InputError(f"{source} is a link to {os.readlink(source)}, which does not exist")
    raise InputError(f"{source} does not exist")


def _in_matches(matches: list[str], skip: str, keep: Sequence[str] | None) -> Iterator[Found]:
    """Yield the clips of the matches of a glob, and of manifests unless `keep` is None."""
    folders = {os.path.normpath(match) for match in matches if os.path.isdir(match)}
    for match in matches:
        if folders.intersection(_above(match)):
            continue  # the search of that folder finds it
        if os.path.isdir(match):
            yield from _in_folder(match, skip)
        elif keep is not None and _may_be_manifest(match):
            yield from in_manifest(match, keep)
        else:
            yield from _in_file(match, match)


def _above(path: str) -> Iterator[str]:
    """Yield the folders above a path."""
    path = os.path.normpath(path)
    while (path := os.path.dirname(path)) not in ("", os.sep):
        yield path


def _in_folder(folder: str, skip: str) -> Iterator[Found]:
    top = os.path.basename(os.path.realpath(folder))
    left_out = os.path.realpath(skip) if skip else None
    unlisted: list[Unlisted] = []

    def note(error: OSError) -> None:
        place = text(str(error.filename))
        unlisted.append(Unlisted(place, f"{place} cannot be searched ({error.strerror})"))

    entered: set[str] = set()
    for place, folders, names in os.walk(folder, onerror=note, followlinks=True):
        real = os.path.realpath(place)
        if real in entered or real == left_out:  # entered before, through a link
            folders.clear()
            continue
        entered.add(real)
        hidden = sum(name.startswith(".") for name in folders)
        if hidden:
            yield PassedOver("hidden folders", hidden)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = os.path.join(place, name)
            yield from _in_file(path, os.path.join(top, os.path.relpath(path, folder)))
    yield from unlisted


def _in_file(path: str, name: str) -> Iterator[Found]:
    """Yield the clips of a file that a search came upon: itself, the members of a tar, or none."""
    hidden = os.path.basename(path).startswith(".")
    wanted = is_audio(path) or (path.lower().endswith(TAR_SUFFIXES) and not hidden)
    if not wanted and os.path.islink(path) and not os.path.exists(path):
        yield PassedOver("broken links")
    elif not is_url(path) and (what := irregular(path)):
        yield PassedOver(_IRREGULAR)
        if wanted:
            reason = f"{text(path)} is {what}, not a regular file"
            yield Refused(clip_id(name), text(absolute(path)), reason)
    elif wanted:
        yield from _named(path, name, ())
    else:
        yield PassedOver(kind_of(path))


def _named(path: str, name: str, keep: Sequence[str]) -> Iterator[Found]:
    """Yield the clips of a file that is taken whatever its suffix."""
    if path.lower().endswith(TAR_SUFFIXES):
        yield from in_tar(path, name)
    elif _may_be_manifest(path):
        yield from in_manifest(path, keep)
    else:
        yield Entry(clip_id(name), absolute(path))


def _search_of_url(source: str, keep: Sequence[str]) -> Iterator[Found]:
    """List the files at a URL, and return the search of them."""
    fsspec = import_extra("fsspec", INSTALL)
    try:
        files, root = fsspec.core.url_to_fs(source)
        if glob.has_magic(root):
            matches = files.glob(root, detail=True)
        elif files.isdir(root):
            matches = {root: {"type": "directory"}}
        else:
            matches = {root: files.info(root)}
        kinds: dict[str, str] = {}
        for path, info in matches.items():
            inside = files.find(path, detail=True) if info["type"] == "directory" else {path: info}
            kinds.update({each: about["type"] for each, about in inside.items()})
    except FileNotFoundError:
        kinds = {}
    except (OSError, ValueError, ImportError) as error:
        raise InputError(f"{source} cannot be opened: {error}") from error
    if not kinds:
        raise InputError(f"{source} does not exist, or is an empty folder")
    if kinds.get(root) == "other":
        raise InputError(f"{source} is a pipe or device, not a regular file")
    return _in_listing(files, root, kinds, keep)


def _in_listing(
    files: Any, root: str, kinds: dict[str, str], keep: Sequence[str]
) -> Iterator[Found]:
    """Yield the clips of files that fsspec has listed.

    Args:
        files: the file system.
        root: the path or glob of the source in it.
        kinds: the type of each file, by its path.
        keep: the columns of the manifests whose values are kept.
    """
    top = os.path.dirname(root.partition("*")[0].rstrip("/"))
    for path, kind in sorted(kinds.items()):
        url = files.unstrip_protocol(path)
        if kind == "other":
            yield PassedOver(_IRREGULAR)
        elif path == root:
            yield from _named(url, path, keep)
        elif _may_be_manifest(root) and _may_be_manifest(path):
            yield from in_manifest(url, keep)
        else:
            yield from _in_file(url, os.path.relpath(path, top))
