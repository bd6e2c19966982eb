"""Run all probes; `melcap probe` does it.

Probes learn the class and the language group of clips from frozen features (`classifiers`,
`features`, `tasks`), and a recogniser transcribes decoded speech (`recogniser`, `word_errors`).
Results are kept in OUT/cache the moment they are there, so a run that was stopped resumes where it
was. OUT/probes.json and OUT/probes.md are made of them at the end.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from melcap.evaluation.probes.features import check, identity
from melcap.evaluation.probes.labels import check_apart, label_clips, transcribed_clips
from melcap.evaluation.probes.settings import Settings
from melcap.evaluation.probes.table import markdown
from melcap.evaluation.probes.tasks import probe_tasks, tasks_of
from melcap.evaluation.probes.word_errors import count_errors, speech_of
from melcap.evaluation.table import Row
from melcap.evaluation.workers import Begin, no_progress
from melcap.extras import import_extra
from melcap.io.files import write_text
from melcap.provenance import provenance

PACKAGES = ("melcap", "torch", "numpy", "av", "pocketsphinx", "jiwer")
"""The packages that results depend on."""


def probe(
    train: Sequence[Path],
    valid: Path,
    out: Path,
    settings: Settings,
    *,
    manifest: Path | None = None,
    speech: Path | None = None,
    begin: Begin = no_progress,
) -> Row:
    """Run all probes and write the results. A run that was stopped resumes.

    Args:
        train: folders, tars or lists of clips to train on.
        valid: a folder, tar or list of clips to score. No package may be in both.
        out: the folder for the results.
        settings: what is computed.
        manifest: a CSV file with the labels of the clips; see `labels.label_clips`.
        speech: a folder of English speech, with the text of NAME.txt for NAME.wav.
        begin: shows progress.

    Returns:
        The summary, which is probes.json. It has a sentence under "failures" for each clip or probe
        that failed.

    Raises:
        InputError: for data, labels or names that cannot be used.
        MelcapError: for a package that is not installed.
    """
    for name in settings.features:
        check(name, settings.find_peer)
    for name in settings.codecs:
        settings.find_peer(name)
    for module in ("pocketsphinx", "jiwer"):
        import_extra(module)
    learning, unlabelled = label_clips(train, manifest)
    scored, left = label_clips([valid], manifest)
    check_apart(learning, scored)
    transcribed = transcribed_clips(speech) if speech else []
    tasks, notes = tasks_of(learning, scored, settings.clips_per_class)
    if unlabelled + left:
        notes.append(f"{unlabelled + left} clips have no line in {manifest} and are left out")
    cache = out / "cache"
    lines, failures = probe_tasks(tasks, settings, cache, begin)
    sides = {"TRAIN": learning, "VALID": scored, "SPEECH": transcribed}
    chosen = speech_of(sides, settings.clips_per_package)
    word_errors, failed = count_errors(chosen, settings, cache, begin)
    identities = {name: identity(name, settings.find_peer) for name in settings.features}
    identities |= {name: settings.find_peer(name).identity for name in settings.codecs}
    summary = {
        **provenance(PACKAGES),
        "seconds_at_most": settings.seconds,
        "seeds": settings.seeds,
        "clips_per_class": settings.clips_per_class,
        "clips_per_package": settings.clips_per_package,
        "tasks": lines,
        "speech": word_errors,
        "identities": identities,
        "notes": notes,
        "failures": failures + failed,
    }
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "probes.json", json.dumps(summary, indent=2) + "\n")
    write_text(out / "probes.md", markdown(summary))
    return summary
