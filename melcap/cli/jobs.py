"""Jobs: which file becomes which. Folders are searched, targets named and collisions refused."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from melcap.bulk.manifests.passed_over import in_words, kind_of
from melcap.errors import InputError

PIPE = Path("-")
"""The path that stands for stdin among the inputs, and for stdout as the output."""


@dataclass(frozen=True)
class Job:
    """A file to read and the file to write."""

    source: Path
    target: Path


def plan(
    inputs: Sequence[Path],
    out: str | None,
    suffixes: Sequence[str],
    targets: Sequence[str],
    passed: Counter[str] | None = None,
) -> list[Job]:
    """Return a job for every input file and for every matching file in the input folders.

    Args:
        inputs: files and folders. `PIPE` may only stand alone; its target is `PIPE` as well if
            `out` is None.
        out: None puts each target beside its source. For a single input file it may name the
            target. Otherwise it is a folder, in which the structure of an input folder is kept.
        suffixes: suffixes of the files that are looked for in folders.
        targets: suffixes that a target named by `out` may have. Other targets get the first one.
        passed: counts what the folders hold beside such files, by kind.

    Raises:
        InputError: before anything is written, where a folder holds nothing to do, `out` does not
            fit, or a target is claimed twice or is itself an input.
    """
    if PIPE in inputs or out == str(PIPE):
        return [_piped(inputs, out, targets)]
    folder = None if out is None else Path(out)
    # What looks like a file name is one, unless a slash at its end says otherwise.
    if out and not out.endswith(("/", os.sep)) and Path(out).suffix and not Path(out).is_dir():
        return [_single(inputs, Path(out), targets)]
    jobs: dict[str, Job] = {}
    for given in inputs:
        counted = Counter[str]() if passed is None else passed
        for source in _files(given, suffixes, folder, counted) if given.is_dir() else [given]:
            place = source.parent
            if folder is not None:
                place = folder / (place.relative_to(given) if given.is_dir() else "")
            job = Job(source, place / f"{source.stem}{targets[0]}")
            other = jobs.setdefault(_key(job.target), job)
            if _key(other.source) != _key(source):
                raise InputError(
                    f"{other.source} and {source} would both become {job.target}; rename one, or "
                    "convert them one by one with an --out of their own"
                )
    sources = {_key(job.source) for job in jobs.values()}
    for key, job in jobs.items():
        if key in sources:
            raise InputError(
                f"{job.target} is an input, and {job.source} would be written over it; name "
                "another folder with --out"
            )
    return list(jobs.values())


def _piped(inputs: Sequence[Path], out: str | None, targets: Sequence[str]) -> Job:
    if len(inputs) > 1 or inputs[0].is_dir():
        raise InputError(f"{PIPE} stands for stdin or stdout, and goes with one file alone")
    target = Path(out or PIPE)
    if target != PIPE and (target.is_dir() or not target.suffix):
        raise InputError(f"{target} is a folder, and stdin has no file name: name a file")
    return Job(inputs[0], PIPE) if target == PIPE else _single(inputs, target, targets)


def _single(inputs: Sequence[Path], target: Path, targets: Sequence[str]) -> Job:
    if len(inputs) > 1 or inputs[0].is_dir():
        raise InputError(
            f"{target} looks like the name of one file, and there may be several to write; for a "
            f"folder of that name, write --out {target}/"
        )
    if target.suffix.lower() not in targets:
        raise InputError(
            f"{target} must end in {' or '.join(targets)}; for a folder of that name, write "
            f"--out {target}/"
        )
    return Job(inputs[0], target)


def _files(
    folder: Path, suffixes: Sequence[str], out: Path | None, passed: Counter[str]
) -> list[Path]:
    """List the files in a folder with one of these suffixes, except hidden ones and `out`."""

    def refuse(error: OSError) -> None:
        raise InputError(f"{error.filename}: cannot be searched: {error.strerror}") from error

    found = []
    skipped = None if out is None or _key(out) == _key(folder) else _key(out)
    for place, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and _key(Path(place, name)) != skipped
        )
        for name in sorted(names):
            if name.lower().endswith(tuple(suffixes)) and not name.startswith("."):
                found.append(Path(place, name))
            else:
                passed[kind_of(name)] += 1
    if not found:
        there = f"it has {in_words(passed)}" if passed else "it is empty"
        raise InputError(f"{folder}: holds no {', '.join(suffixes)} files: {there}")
    return found


def _key(path: Path) -> str:
    return os.path.normcase(path.resolve())
