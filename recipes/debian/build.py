"""The steps from packages and folders to shards; each step keeps its results in a cache.

CACHE/apt/        package lists, if a suite is named
CACHE/debs/       packages as downloaded; deleted once unpacked, unless they are to be kept
CACHE/packages/   the audio and copyright files of each package
CACHE/probed/     the facts about files, 64 files together
CACHE/clips/      encoded clips, named by a digest of all they are made of; deleted at the end
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from melcap.errors import InputError
from melcap.io.files import replacing
from melcap.processes import executor
from recipes.debian import shards, tables
from recipes.debian.apt import Apt, FetchError, Package
from recipes.debian.choose import choose
from recipes.debian.clips import Clip, cut, sift
from recipes.debian.encode import make
from recipes.debian.probe import Facts, probe
from recipes.debian.progress import run_jobs, stop_at_failure
from recipes.debian.rules import Rules
from recipes.debian.sources import OWN, Audio, Dropped, Splitter, of_folder, of_package
from recipes.debian.unpack import copyright_text, unpack

_FORMAT = 1
"""A number that changes whenever the same sources give other clips."""
_FILES_PER_UNIT = 64


@dataclass(frozen=True)
class Request:
    """A request for a set; the options of the command have the same meaning.

    Attributes:
        out: The folder of the set.
        cache: The folder of intermediate results.
        packages: The names of packages to use.
        rules: The rules for them.
        folders: Folders of your own audio to use.
        licence: The licence of the folders' audio.
        hours: The length of the set; None for the minutes of the rules.
        everything: Whether to take all good audio.
        splitter: The rule for valid.
        suffix: .flac or .opus.
        min_bandwidth: The least bandwidth in Hz; None for that of each class.
        shard_bytes: The size of a train shard.
        keep_debs: Whether to keep packages after unpacking.
        workers: The number of worker processes.
    """

    out: Path
    cache: Path
    packages: Sequence[str] = ()
    rules: Rules = field(default_factory=dict)
    folders: Sequence[Path] = ()
    licence: str = OWN
    hours: float | None = None
    everything: bool = False
    splitter: Splitter = field(default_factory=lambda: Splitter(0.06))
    suffix: str = ".flac"
    min_bandwidth: int | None = None
    shard_bytes: int = 250_000_000
    keep_debs: bool = False
    workers: int = 2


@dataclass(frozen=True)
class Built:
    """The rows of the manifest, what was left out, and whether the set was complete before."""

    rows: list[tables.Row]
    dropped: list[Dropped]
    as_before: bool = False


def build(request: Request, apt: Apt, console: Console) -> Built:
    """Make the set, or continue where it was stopped; a complete set stays as it is.

    Args:
        request: The set that is wanted.
        apt: The source of packages.
        console: Where progress is shown.

    Raises:
        InputError: For a request that is not possible.
        FetchError: For packages that cannot be fetched, and where no clip is left.
        OutputExistsError: For a folder with shards that this command did not make.
        OSError: For errors of the file system.
    """
    names = [*request.packages, *(folder.resolve().name for folder in request.folders)]
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"two sources are called {', '.join(doubled)}; rename one folder")
    request.out.mkdir(parents=True, exist_ok=True)
    shards.refuse_others(request.out)
    packages = apt.look_up(request.packages) if request.packages else []
    with executor(request.workers) as pool, Progress(console=console, transient=True) as progress:
        _fetch(packages, request, apt, pool, progress)
        files, dropped = _sources(packages, request)
        probed = _probe(files, request.cache / "probed", pool, progress)
        kept, unfit = sift(probed, request.min_bandwidth)
        clips, rest = cut(kept)
        taken, beyond = choose(clips, request.hours, request.everything)
        dropped = [*dropped, *unfit, *rest, *beyond]
        if not taken:
            reasons = sorted({drop.reason for drop in dropped})
            raise FetchError(f"nothing is left to make clips of: {'; '.join(reasons)}")
        named = shards.name_clips(taken, request.suffix)
        places = {name: _place(request, clip) for name, clip in named}
        key = _key(request, named, places, dropped)
        if shards.is_complete(request.out, key):
            return Built(tables.read_rows(request.out), dropped, as_before=True)
        _encode([(clip, places[name]) for name, clip in named], pool, progress)
        origins = {folder.resolve().name: tables.Origin(0, None) for folder in request.folders}
        for package in packages:
            text = copyright_text(_folder_of(package, request))
            origins[package.name] = tables.Origin(package.size, text)
        task = progress.add_task("packing", total=len(named))
        rows = shards.write(
            request.out,
            named,
            places,
            origins,
            dropped,
            key,
            request.shard_bytes,
            advance=lambda: progress.advance(task),
        )
    shutil.rmtree(request.cache / "clips")
    return Built(rows, dropped)


def _fetch(
    packages: Sequence[Package], request: Request, apt: Apt, pool: Executor, progress: Progress
) -> None:
    """Download and unpack the packages that are not in the cache."""
    debs = request.cache / "debs"
    debs.mkdir(parents=True, exist_ok=True)
    todo = [package for package in packages if not _folder_of(package, request).exists()]
    if not todo:
        return
    size = sum(package.size for package in todo)
    needed, free = size + sum(package.unpacked for package in todo), shutil.disk_usage(debs).free
    what = f"{len(todo)} packages, {size / 1e6:.1f} MB to download"
    if free < needed:
        raise FetchError(
            f"{what}: they need up to {needed / 1e9:.1f} GB in {request.cache}, where "
            f"{free / 1e9:.1f} GB are free; name a larger disk with --cache, or fewer packages"
        )
    progress.console.print(what, highlight=False)
    task = progress.add_task("downloading", total=size)
    done = 0
    jobs = []
    for package in todo:

        def show(bytes_so_far: int, before: int = done) -> None:
            progress.update(task, completed=before + bytes_so_far)

        deb = apt.download(package, debs, show)
        done += package.size
        progress.update(task, completed=done)
        jobs.append(pool.submit(_unpack, deb, _folder_of(package, request), request.keep_debs))
        stop_at_failure(jobs[-1])
    for job in jobs:
        job.result()
    progress.remove_task(task)


def _unpack(deb: Path, target: Path, keep: bool) -> None:
    unpack(deb, target)
    if not keep:
        deb.unlink()


def _folder_of(package: Package, request: Request) -> Path:
    return request.cache / "packages" / package.folder_name


def _sources(packages: Sequence[Package], request: Request) -> tuple[list[Audio], list[Dropped]]:
    files: list[Audio] = []
    dropped: list[Dropped] = []
    for package in packages:
        folder = _folder_of(package, request)
        found, left = of_package(package, folder, request.rules, request.splitter)
        files += found
        dropped += left
    for path in request.folders:
        files += of_folder(path, request.licence, request.splitter)
    return files, dropped


def _probe(
    files: Sequence[Audio], cache: Path, pool: Executor, progress: Progress
) -> list[tuple[Audio, Facts]]:
    """Return each file with its facts."""
    cache.mkdir(parents=True, exist_ok=True)
    # By group, so that new files of another group do not change a unit.
    groups: dict[tuple[str, str, str], list[Audio]] = defaultdict(list)
    for audio in files:
        groups[audio.package, audio.label, audio.speaker].append(audio)
    units = [
        group[first : first + _FILES_PER_UNIT]
        for group in groups.values()
        for first in range(0, len(group), _FILES_PER_UNIT)
    ]
    jobs = [([audio.path for audio in unit], cache) for unit in units]
    found = run_jobs(pool, _probe_unit, jobs, progress, "probing", [len(unit) for unit in units])
    return [
        pair
        for unit, facts in zip(units, found, strict=True)
        for pair in zip(unit, facts, strict=True)
    ]


def _probe_unit(paths: Sequence[Path], cache: Path) -> list[Facts]:
    states = [(str(path.absolute()), path.stat()) for path in paths]
    key = _digest([_FORMAT, [[name, state.st_size, state.st_mtime_ns] for name, state in states]])
    note = cache / f"{key}.json"
    if note.exists():
        return [Facts.of(values) for values in json.loads(note.read_text(encoding="utf-8"))]
    facts = [probe(path) for path in paths]
    with replacing(note) as partial:
        partial.write_text(json.dumps([asdict(each) for each in facts]), encoding="utf-8")
    return facts


def _encode(clips: Sequence[tuple[Clip, Path]], pool: Executor, progress: Progress) -> None:
    """Make the clips. Those from one file are made together, so that it is read once."""
    files: dict[tuple[Path, ...], list[tuple[Clip, Path]]] = defaultdict(list)
    for clip, target in clips:
        target.parent.mkdir(parents=True, exist_ok=True)
        files[tuple(part.audio.path for part in clip.parts)].append((clip, target))
    jobs = [
        (sorted(together, key=lambda item: item[0].parts[0].spans),) for together in files.values()
    ]
    run_jobs(pool, make, jobs, progress, "encoding", [len(together) for (together,) in jobs])


def _key(
    request: Request,
    named: Sequence[tuple[str, Clip]],
    places: Mapping[str, Path],
    dropped: Sequence[Dropped],
) -> str:
    """Return a digest of all that is in the shards and the tables beside them."""
    clips = []
    for name, clip in named:
        audio, origins = clip.audio, [part.audio.origin for part in clip.parts]
        clips.append(
            [name, places[name].name, audio.version, audio.licence, audio.speaker, origins]
        )
    left = sorted([drop.package, drop.origin, drop.reason] for drop in dropped)
    return _digest([_FORMAT, request.shard_bytes, clips, left])


def _place(request: Request, clip: Clip) -> Path:
    """Return the path of a clip in the cache."""
    parts = [[part.facts.digest, part.facts.left, part.spans] for part in clip.parts]
    return request.cache / "clips" / f"{_digest([_FORMAT, request.suffix, parts])}{request.suffix}"


def _digest(what: object) -> str:
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:24]
