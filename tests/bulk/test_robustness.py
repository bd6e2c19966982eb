"""In a hostile collection, good clips are tokenized, bad ones named, and memory is bounded."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from melcap import Codec
from melcap.audio import write
from melcap.bulk.files.names import text
from melcap.bulk.manifests.entries import Entry
from melcap.bulk.reading.decoding import read_task
from melcap.bulk.reading.messages import Bad, End, Window
from melcap.bulk.reading.pool import ReaderPool
from melcap.bulk.reading.windows import Framing
from melcap.bulk.tokenize import ERRORS
from tests.bulk.helpers import corpus, ids_and_tokens, rows_of, wave
from tests.io import hostile_corpus

pytest.importorskip("pyarrow")

MEMORY_BOUND_MIB = 700
"""The bound for the largest process with a small codec, most of which torch takes."""

INTERRUPTIBLE = """
import signal
from melcap.cli.commands import main
signal.signal(signal.SIGINT, signal.default_int_handler)
main()
"""
"""The command with its own SIGINT handler: children of a background job would ignore Ctrl-C."""

MEASURED = """
import resource, sys
from melcap.cli.commands import main
peak = sys.argv.pop(1)
try:
    main()
finally:
    own = next(line for line in open("/proc/self/status") if "VmHWM" in line).split()[1]
    readers = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    open(peak, "w").write(f"{own} {readers}")
"""
"""The command, which then writes the peak KiB of itself and of its largest reader."""


@pytest.mark.slow
def test_a_hostile_collection(small_weights: Path, tmp_path: Path) -> None:
    good, bad = hostile_corpus.make(tmp_path / "hostile")
    out = tmp_path / "out"
    words = ("tokenize", tmp_path / "hostile", "-o", out, "--weights", small_weights)
    words = (*words, "--encoders", 2, "--readers", 2)
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, tmp_path / "peak", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert done.stderr == f"error: {len(bad)} could not be read: see {out / ERRORS}\n"
    assert f"{len(good)} of {len(good) + len(bad) - 2} clips" in done.stdout

    found = {row.id: row.header for row in rows_of(out)}
    assert set(found) == {f"hostile/{text(name)}" for name in good}
    for name, (rate, channels, samples) in good.items():
        header = found[f"hostile/{text(name)}"]
        assert (header.sample_rate, header.channels) == (rate, channels), name
        # an mp3 is padded to whole frames where a decoder does not know better
        slack = 2 * 1152 if "mp3" in name else 0
        assert samples <= header.samples <= samples + slack, name

    errors = list(map(json.loads, (out / ERRORS).read_text().splitlines()))
    reasons = {error["source"]: error["reason"] for error in errors}
    assert set(reasons) == {f"{tmp_path / 'hostile'}/{name}" for name in bad}
    for name, reason in bad.items():
        assert reason in reasons[f"{tmp_path / 'hostile'}/{name}"], name
    peaks = [int(size) >> 10 for size in (tmp_path / "peak").read_text().split()]
    assert max(peaks) < MEMORY_BOUND_MIB, peaks


@pytest.mark.slow
def test_a_reader_that_dies_costs_only_its_clip(codec: Codec, tmp_path: Path) -> None:
    framing = Framing.of(codec)
    hostile_corpus._write_silence(tmp_path / "long.wav", 100_000_000, 44100)
    write(tmp_path / "short.wav", wave(0.1), 44100)
    entries = [Entry(name, str(tmp_path / name)) for name in ("long.wav", "short.wav")]
    with ReaderPool(1, framing, mono=False) as readers:
        rest, killed = [], set()
        for message in readers.read(enumerate(entries)):
            rest.append(message)
            pid = readers._readers[0]._process.pid
            assert pid
            if isinstance(message, Window) and message.clip == 0 and pid not in killed:
                os.kill(pid, signal.SIGSEGV)
                killed.add(pid)
    assert len(killed) == 2, "the clip had a second try in a process of its own"
    (bad,) = (message for message in rest if isinstance(message, Bad))
    assert bad.clip == 0
    assert (
        bad.reason
        == f"{tmp_path}/long.wav cannot be read: two processes that read it died (signal 11)"
    )
    assert isinstance(rest[-1], End)
    assert rest[-1].clip == 1


def test_an_exception_costs_only_its_clip(
    codec: Codec, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(_: object) -> None:
        raise ZeroDivisionError("a fault of a decoder")

    monkeypatch.setattr("melcap.bulk.reading.decoding.AudioReader", broken)
    (tmp_path / "a.wav").write_bytes(b"RIFF")
    entry = Entry("x", str(tmp_path / "a.wav"))
    (bad,) = read_task([(3, entry)], Framing.of(codec), mono=False)
    assert isinstance(bad, Bad)
    what = "cannot be read (ZeroDivisionError: a fault of a decoder)"
    assert bad.reason == f"{tmp_path / 'a.wav'} {what}"


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_done(small_weights: Path, codec: Codec, tmp_path: Path) -> None:
    corpus(tmp_path / "clips", [0.1] * 30 + [0.2])
    last = tmp_path / "clips" / "z" / "long.wav"
    last.parent.mkdir()
    hostile_corpus._write_silence(last, 10 * 3600 * 44100, 44100)
    arguments = ("tokenize", tmp_path / "clips", "-o", tmp_path / "out", "--json", "--encoders", 1)
    words = map(str, (*arguments, "--shard-clips", 3, "--weights", small_weights))
    command = [sys.executable, "-c", INTERRUPTIBLE, *words]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout
    for line in process.stdout:
        if json.loads(line)["done"] >= 3:
            break
    began = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does, readers and all
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert errors == "interrupted\n"
    assert time.monotonic() - began < 30
    kept = ids_and_tokens(tmp_path / "out")
    assert len(kept) >= 3
    write(last, wave(0.1), 44100)
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = list(map(json.loads, done.stdout.splitlines()))
    assert lines[-1]["event"] == "end"
    assert lines[-1]["done"] == lines[-1]["clips"] == 32
    assert lines[0]["done"] >= len(kept)
    rows = ids_and_tokens(tmp_path / "out")
    assert len(dict(rows)) == len(rows) == 32
    assert set(kept) <= set(rows)
