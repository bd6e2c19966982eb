"""Training data out of packages and folders, without a network: packages are made here.

apt-get and apt-cache are stand-ins that serve those packages; one test drives the real apt, where
there is one, with a repository of its own.
"""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
import json
import math
import os
import shutil
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import typer
from click.testing import Result
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from typer.testing import CliRunner

from melcap.errors import InputError
from melcap.training.audio_cache import SAMPLE_RATE, AudioCache
from melcap.training.decoding import build_cache
from recipes.debian import __main__, apt, build, clips, encode, shards, unpack
from recipes.debian.apt import Apt, FetchError
from recipes.debian.choose import choose
from recipes.debian.licences import Copyright, is_free
from recipes.debian.probe import Facts, probe, sounding
from recipes.debian.rules import Kind, choose_packages, default_rules, kind_of, parse
from recipes.debian.sources import Audio, Splitter, of_folder
from tests.helpers import examples

soundfile = pytest.importorskip("soundfile")
av = pytest.importorskip("av")

Files = dict[str, bytes]


def tone(seconds: float, frequency: float = 440.0, rate: int = 44_100) -> np.ndarray:
    """A tone with noise beneath it, so that every one is another."""
    time = np.arange(round(seconds * rate)) / rate
    noise = np.random.default_rng(round(frequency * 7 + seconds * 1000)).normal(size=len(time))
    return 0.4 * np.sin(2 * np.pi * frequency * time) + 0.02 * noise


def coded(wave: np.ndarray, rate: int = 44_100, kind: str = "WAV") -> bytes:
    out = io.BytesIO()
    soundfile.write(out, wave, rate, "PCM_16", format=kind)
    return out.getvalue()


def zipped(files: Files) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


def tarred(files: Files) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return out.getvalue()


def deb(files: Files, control: str = "") -> bytes:
    """A .deb by hand: an ar archive of its version, its control file and its content."""
    members = {
        "debian-binary": b"2.0\n",
        "control.tar.gz": tarred({"./control": control.encode()}),
        "data.tar.gz": tarred({f"./{name}": data for name, data in files.items()}),
    }
    out = b"!<arch>\n"
    for name, data in members.items():
        out += f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(data):<10}`\n".encode()
        out += data + b"\n" * (len(data) % 2)
    return out


APT_CACHE = """
import os, sys
from pathlib import Path
from types import SimpleNamespace
records = (Path(os.environ["ARCHIVE"]) / "Packages").read_text().split("\\n\\n")
shown = [r for r in records if r.split("\\n")[0][9:] in sys.argv[2:]]
print("\\n\\n".join(shown))
sys.exit(0 if shown else 100)
"""
APT_GET = """
import os, shutil, sys
from pathlib import Path
from types import SimpleNamespace
if failure := os.environ.get("APT_FAILS"):
    print(failure, file=sys.stderr)
    sys.exit(100)
name = sys.argv[-1].partition("=")[0]
shutil.copy(Path(os.environ["ARCHIVE"]) / f"{name}.deb", f"{name}_1_all.deb")
with (Path(os.environ["ARCHIVE"]) / "log").open("a") as log:
    log.write(name + "\\n")
"""
DPKG_DEB = """
import gzip, sys
data = open(sys.argv[-1], "rb").read()
at = data.index(b"data.tar.gz")
sys.stdout.buffer.write(gzip.decompress(data[at + 60 : at + 60 + int(data[at + 48 : at + 58])]))
"""


class Archive:
    """Packages for the stand-ins of apt."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.records: list[str] = []
        tools = {"apt-cache": APT_CACHE, "apt-get": APT_GET}
        if shutil.which("dpkg-deb") is None:
            tools["dpkg-deb"] = DPKG_DEB
        (folder / "bin").mkdir(parents=True)
        for name, text in tools.items():
            (folder / "bin" / name).write_text(f"#!{sys.executable} -SE\n{text}")
            (folder / "bin" / name).chmod(0o755)

    def add(self, name: str, files: Files, section: str = "games", source: str = "") -> None:
        control = f"Package: {name}\nVersion: 1\nArchitecture: all\n"
        control += f"Maintainer: A <a@b.c>\nDescription: x\nSection: {section}\n"
        data = deb(files, control)
        (self.folder / f"{name}.deb").write_bytes(data)
        self.records.append(
            control
            + (f"Source: {source} (1-1)\n" if source else "")
            + f"Installed-Size: 9\nSize: {len(data)}\nFilename: ./{name}.deb\n"
            + f"SHA256: {hashlib.sha256(data).hexdigest()}"
        )
        self.write()

    def write(self) -> None:
        (self.folder / "Packages").write_text("\n\n".join(self.records))

    def downloads(self) -> list[str]:
        log = self.folder / "log"
        return log.read_text().split() if log.exists() else []


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Speech in words, music in a zip, a sound, and the oddities that real packages have."""
    made = Archive(tmp_path_factory.mktemp("packages"))
    words = {
        f"usr/share/talk/voices/{who}/{n}.wav": coded(tone(0.8 + n / 10, 300 + 40 * n + i))
        for i, who in enumerate(("anna", "bert"))
        for n in range(9)
    }
    words["usr/share/doc/talk-data/copyright"] = DEP5.encode()
    words["usr/share/talk/voices/anna/same.wav"] = words["usr/share/talk/voices/anna/3.wav"]
    words["usr/share/talk/voices/anna/nothing.wav"] = coded(np.zeros(44_100))
    words["usr/share/talk/secret/voices/x.wav"] = coded(tone(9, 500))
    words["usr/share/talk/broken.wav"] = b"RIFF and no more"
    made.add("talk-data", words)
    song = np.concatenate([tone(26, 220), np.zeros(2 * 44_100), tone(7, 330)])
    song_file = zipped({"music/long.flac": coded(song, kind="FLAC")})
    text = b"This music is in the public domain.\n"
    made.add(
        "band-data",
        {"usr/share/band/data.pk3": song_file, "usr/share/doc/band-data/copyright": text},
    )
    sound = coded(tone(10, 900))
    text = DEP5.encode()
    made.add(
        "noise-data",
        {"usr/share/noise/bang.wav": sound, "usr/share/doc/noise-data/copyright": text},
        source="noise",
    )
    made.add("sold-data", {"usr/a.wav": coded(tone(1))}, section="non-free/games")
    return made.folder


@pytest.fixture
def archive(packages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Archive:
    """The packages, for one test to have and to change."""
    made = Archive(tmp_path / "archive")
    made.records = (packages / "Packages").read_text().split("\n\n")
    for path in packages.glob("*.*"):
        shutil.copy(path, made.folder)
    made.write()
    monkeypatch.setenv("ARCHIVE", str(made.folder))
    monkeypatch.setenv("PATH", str(made.folder / "bin"), prepend=os.pathsep)
    return made


@pytest.fixture(scope="module")
def whole(packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Return the set that an uninterrupted run makes of three of the packages."""
    out = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ARCHIVE", str(packages))
        patch.setenv("PATH", str(packages / "bin"), prepend=os.pathsep)
        fetched(out, *ALL)
    return content(out)


DEP5 = """\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: Talk
Source: https://example.org/
Comment: the sounds were
 taken from elsewhere.

Files: *
Copyright: 2003-2012, The Authors
License: GPL-2+

Files: data/voices/anna/*
 data/voices/carl/*.ogg
Copyright: 2011, Anna
# a comment in between
License: CC-BY-SA-3.0
 The text of the licence
 .
 goes on here.

Files: secret/*
Copyright: 2012, Somebody
License: CC-BY-NC-3.0

Files: debian/*
Copyright: 2013, A Maintainer
License: MIT

License: GPL-2+
 This program is free software; you can redistribute it.
"""
OES = """\
This package was debianized by somebody on Fri, 22 Sep 2006 23:40:16 -0700.

License:
    This program is free software; you can redistribute it and/or modify it
    under the terms of the GNU General Public License as published by the Free
    Software Foundation; either version 2 of the License, or (at your option)
    any later version.

On Debian systems, see /usr/share/common-licenses/GPL.
"""


class TestLicences:
    @pytest.mark.parametrize(
        ("origin", "licence"),
        [
            ("usr/share/talk/engine.ogg", "GPL-2+"),
            ("usr/share/games/talk/data/voices/anna/a/b.ogg", "CC-BY-SA-3.0"),
            ("usr/share/talk/voices/anna/yes.ogg", "CC-BY-SA-3.0"),  # data/ is gone
            ("usr/share/talk/voices/carl/yes.ogg", "CC-BY-SA-3.0"),
            ("usr/share/talk/voices/carl/yes.wav", "GPL-2+"),
            ("usr/share/talk/secret/yes.wav", "CC-BY-NC-3.0"),
        ],
    )
    def test_dep5(self, origin: str, licence: str) -> None:
        assert Copyright.parse(DEP5).licence_of(origin) == licence

    def test_the_closest_pattern_counts(self) -> None:
        text = "Format: x\n\nFiles: snd/*\nLicense: MIT\n\nFiles: snd/a/*.ogg\nLicense: CC0-1.0\n\n"
        text += "Files: *.ogg\nLicense: Expat\n\nFiles: snd/a/*\nLicense: zlib\n"
        read = Copyright.parse(text)
        assert read.licence_of("usr/snd/a/x.ogg") == "CC0-1.0"
        assert read.licence_of("usr/snd/a/x.wav") == "zlib"
        assert read.licence_of("usr/snd/b.ogg") == "MIT"
        assert read.licence_of("usr/c.ogg") == "Expat"

    def test_a_zip_archive_is_a_file_of_the_source(self) -> None:
        read = Copyright.parse("Format: x\n\nFiles: base/0snd.pk3\nLicense: CC-BY-3.0\n")
        assert read.licence_of("usr/share/base/0snd.pk3/sound/x.ogg") == "CC-BY-3.0"

    def test_without_a_pattern_that_fits_all_hold(self) -> None:
        text = "Format: x\n\nFiles: a/*\nLicense: MIT\n\nFiles: b/*\nLicense: CC-BY-NC-4.0\n\n"
        read = Copyright.parse(text + "Files: debian/*\nLicense: GPL-2\n")
        assert read.licence_of("usr/c/x.ogg") == "MIT + CC-BY-NC-4.0"
        assert not is_free(read.licence_of("usr/c/x.ogg"))

    def test_a_stanza_without_a_short_name(self) -> None:
        text = (
            "Format: x\n\nFiles: *\nLicense:\n Permission is hereby granted, free of charge, to\n"
        )
        assert Copyright.parse(text).licence_of("x.ogg") == "MIT"

    @pytest.mark.parametrize(
        ("text", "licence"),
        [
            (OES, "GPL-2+"),
            (OES.replace("version 2", "version 3"), "GPL-3+"),
            ("Licensed under the CC BY-SA 4.0.", "CC-BY-SA-4.0"),
            ("These sounds are in the Public Domain; code: GPL.", "public-domain + GPL"),
            ("Creative Commons Attribution-NonCommercial 3.0", "non-free (NonCommercial)"),
            ("Do as you like.", "unknown"),
            (None, "unknown"),
        ],
    )
    def test_free_text(self, text: str | None, licence: str) -> None:
        assert Copyright.parse(text).licence_of("usr/x.ogg") == licence

    FREE = """GPL, GPL-2, GPL-2+, GPL-2.0+, GPL-3.0-or-later, LGPL-3.0-or-later, GFDL-1.3, CC0,
        CC0-1.0, CC-BY-3, CC-BY-3.0, CC-BY-SA-3.0-us, CC-BY-SA-3.0+, CC-BY-SA-4.0, Expat, MIT,
        BSD-like, BSD-3-clause, zlib, public-domain, Public Domain, Artistic-2.0, Apache-2.0,
        GPL-2+ with composition exception, GPL-2+ OR CC-BY-SA, LGPL-2.1 or MPL, MIT + CC0,
        GPL-2 and CC-BY-3.0, CC-BY-SA-3.0 | GPL-2+ | GPL-2"""
    NOT_FREE = """unknown, CC-BY-NC-3.0, CC-BY-ND-4.0, CC-BY-NC-SA-4.0, CC-BY-SA-NC-3.0, CC-BY-2.0,
        non-free, proprietary, MIT + CC-BY-NC-3.0, MIT + other, GPL-2 and other, drascula,
        MITRE, my BSD, GPL-2+ or non-commercial use"""

    @pytest.mark.parametrize("licence", [name.strip() for name in FREE.split(",")])
    def test_free(self, licence: str) -> None:
        assert is_free(licence)

    @pytest.mark.parametrize("licence", ["", *(name.strip() for name in NOT_FREE.split(","))])
    def test_not_free(self, licence: str) -> None:
        assert not is_free(licence)


class TestRules:
    def test_the_default_list(self) -> None:
        """The packages of valid are those that the shipped weights were never trained on."""
        rules = default_rules()
        assert len(rules) == 66
        valid = [name for name, rows in rules.items() if rows[0].split == "valid"]
        assert ", ".join(valid) == (
            "asterisk-core-sounds-fr-g722, deepin-sound-theme, fillets-ng-data-nl, freeciv-data, "
            "fretsonfire-songs-muldjord, ktuberling-data, lomiri-sounds, oxygen-sounds, "
            "pushover-data, singularity-music, sound-theme-freedesktop, wesnoth-1.16-data, "
            "yaru-theme-sound"
        )
        licences = {row.licence for rows in rules.values() for row in rows if row.licence}
        assert all(is_free(licence) for licence in licences)

    @pytest.mark.parametrize(
        ("package", "origin", "kind"),
        [
            ("gcin-voice", "usr/share/gcin-voice/ogg/x/3.ogg", Kind("speech", "3", 6)),
            ("scratch", "usr/Media/Sounds/Human/Cough.mp3", Kind("sound", "", 1)),
            ("nexuiz-data", "u/sound/announcer/male/1.ogg", Kind("speech", "male", 2)),
            ("supertux-data", "usr/supertux2/music/a.ogg", Kind("music", "", 7)),
            ("supertux-data", "usr/supertux2/sounds/a.ogg", Kind("sound", "", 2)),
            ("frozen-bubble-data", "usr/snd/launch.ogg", None),
            ("fillets-ng-data-cs", "usr/music/a.ogg", None),
            ("anything", "usr/share/x/voices/eva/a.ogg", Kind("speech", "eva", 10)),
            ("anything", "usr/share/x/bgm/a.ogg", Kind("music", "", 10)),
            ("anything", "usr/share/x/voice.ogg", Kind("sound", "", 10)),
        ],
    )
    def test_kinds(self, package: str, origin: str, kind: Kind | None) -> None:
        assert kind_of(package, origin, default_rules()) == kind

    HEAD = "package,split,class,minutes,licence,files\n"

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("package,files\na,b\n", "its first line must be"),
            (HEAD, "names no package"),
            (HEAD + "a,train,noise,1,,\n", "line 2: the class is"),
            (HEAD + "a,test,music,1,,\n", "line 2: the split is"),
            (HEAD + "a,train,music,1,,(\n", "line 2: "),
            (HEAD + "a,train,music,-1,,\n", "line 2: minutes must be above 0"),
            (HEAD + "a,train,music,soon,,\n", "line 2: "),
            (HEAD + "a,train,music,1\n", "line 2: must have 6 columns"),
            (HEAD + "a,train,music,1,,\na,valid,sound,1,,\n", "line 3: a is in two splits"),
        ],
    )
    def test_refuses_a_bad_list(self, text: str, message: str) -> None:
        with pytest.raises(InputError, match=f"list.csv.*{message}"):
            parse(text, "list.csv")

    def test_names(self, tmp_path: Path) -> None:
        assert choose_packages("b1,a2, b1")[0] == ["b1", "a2"]
        (tmp_path / "names").write_text("# mine\nb1\na2 # good\n\n")
        assert choose_packages(str(tmp_path / "names"))[0] == ["b1", "a2"]
        (tmp_path / "list").write_text(self.HEAD + "b1,,music,1,,\n")
        names, rules = choose_packages(str(tmp_path / "list"))
        assert (names, len(rules)) == (["b1"], 1)
        for odd, message in (("", "names no"), ("no/such", "no such file"), ("A b", "not a")):
            with pytest.raises(InputError, match=message):
                choose_packages(odd)


def audio(origin: str = "a.wav", **changes: object) -> Audio:
    base = Audio(Path(origin), origin, "p", "1", "MIT", "sound", "", "train", 10.0)
    return replace(base, **changes)  # type: ignore[arg-type]


def facts(samples: int, spans: list[tuple[int, int]], rate: int = 44_100, **more: object) -> Facts:
    values = {"peak": 0.5, "bandwidth": 9000, "channels": 1, "digest": f"{samples} {spans}"}
    return Facts(rate=rate, samples=samples, spans=tuple(spans), **{**values, **more})  # type: ignore[arg-type]


@st.composite
def files(draw: st.DrawFn) -> list[tuple[Audio, Facts]]:
    """Files of any length to some minutes, that sound in some spans; most of one group."""
    found = []
    usual = draw(st.sampled_from(["speech", "music", "sound"]))
    for number in range(draw(st.integers(1, 12))):
        rate = draw(st.sampled_from([8000, 11127, 16_000, 22_050, 44_100, 48_000, 96_000]))
        longest = draw(st.sampled_from([1, 7, 7, 7, 31, 200])) * rate
        edges = sorted({0, longest} | draw(st.sets(st.integers(1, longest - 1), max_size=4)))
        spans = list(zip(edges[::2], edges[1::2], strict=False))
        who = audio(
            f"{number}.wav",
            label=draw(st.sampled_from([usual, usual, usual, "sound"])),
            speaker=draw(st.sampled_from(["", "", "", "anna"])),
            split=draw(st.sampled_from(["train", "train", "train", "valid"])),
            licence=draw(st.sampled_from(["MIT", "MIT", "MIT", "CC0"])),
            minutes=draw(st.sampled_from([0.2, 1.0, math.inf])),
        )
        found.append((who, facts(edges[-1] + draw(st.integers(0, 99)), spans, rate)))
    return found


class TestClips:
    @settings(max_examples=examples(50))
    @given(files())
    def test_every_sample_is_kept_or_named(self, given: list[tuple[Audio, Facts]]) -> None:
        made, dropped = clips.cut(given)
        for clip in made:
            assert 0.5 <= clip.seconds <= (clips.LONGEST if len(clip.parts) == 1 else 20)
            assert len({(p.audio.split, p.audio.label, p.audio.speaker) for p in clip.parts}) == 1
            assert len({part.audio.licence for part in clip.parts}) == 1
        for who, known in given:
            parts = [part for clip in made for part in clip.parts if part.audio == who]
            spans = sorted(span for part in parts for span in part.spans)
            joined: list[tuple[int, int]] = []
            for start, stop in spans:
                assert start < stop
                if joined and joined[-1][1] == start:
                    joined[-1] = (joined[-1][0], stop)
                else:
                    joined.append((start, stop))
            reasons = {drop.reason: drop.seconds for drop in dropped if drop.origin == who.origin}
            silent = known.samples - sum(stop - start for start, stop in known.spans)
            assert reasons.pop("silence", 0) == pytest.approx(silent / known.rate)
            if parts:
                assert joined == list(known.spans)
                assert not reasons
            else:
                assert set(reasons) == {"too short, and alone"}

    @settings(max_examples=examples(50))
    @given(files(), st.one_of(st.none(), st.floats(0.001, 0.5)), st.booleans())
    def test_choose(
        self, given: list[tuple[Audio, Facts]], hours: float | None, everything: bool
    ) -> None:
        made, _ = clips.cut(given)
        taken, dropped = choose(made, None if everything else hours, everything)
        assert len(taken) + len({id(clip) for clip in made} - {id(c) for c in taken}) == len(made)
        assert bool(dropped) == (len(taken) < len(made))
        if everything:
            assert not dropped
        elif hours is not None:
            assert sum(clip.seconds for clip in taken) <= hours * 3600
        else:
            groups: dict[object, list[float]] = {}
            for clip in taken:
                groups.setdefault((clip.audio.label, clip.audio.speaker), []).append(clip.seconds)
            for clip in made:  # each group gives one clip at the least
                assert groups[clip.audio.label, clip.audio.speaker]

    def test_shares_are_kept_and_filled(self) -> None:
        """Two groups of which the list wants 10 and 20 minutes, and files take turns in them."""
        long = [
            (audio(f"{name}{n}", speaker=name, minutes=minutes, label="music"), known)
            for name, minutes in (("a", 10.0), ("b", 20.0))
            for n in range(4)
            for known in [facts(44_100 * 600, [(0, 44_100 * 600)])]
        ]
        made, _ = clips.cut(long)
        for hours, expected in ((None, (600, 1200)), (0.25, (300, 600)), (9.0, (2400, 2400))):
            taken, _ = choose(made, hours)
            found = [sum(c.seconds for c in taken if c.audio.speaker == who) for who in "ab"]
            assert found == pytest.approx(expected, abs=31)
        taken, _ = choose(made, 0.03)
        assert len({clip.audio.origin for clip in taken}) == len(taken) == 3

    def test_words_fill_clips_of_20_seconds(self) -> None:
        known = facts(3 * 44_100, [(0, 3 * 44_100)])
        made, dropped = clips.cut([(audio(f"{n}.wav"), known) for n in range(14)])
        assert [len(clip.parts) for clip in made] == [6, 6, 2]
        assert made[0].seconds == pytest.approx(18 + 5 / 8, abs=1e-3)
        assert not dropped

    def test_faults(self) -> None:
        good = facts(44_100, [(0, 44_100)])
        assert clips.fault("speech", good) == ""
        cases = {
            "silent": [replace(good, peak=1e-3), replace(good, spans=())],
            "too short": [replace(good, spans=((0, 3000),))],
            "narrow band": [replace(good, rate=8000), replace(good, bandwidth=3500)],
            "clipped": [replace(good, clipped=0.02)],
            "cannot be decoded: x": [Facts(error="x")],
        }
        for reason, bad in cases.items():
            assert all(clips.fault("speech", each).startswith(reason) for each in bad)
        assert clips.fault("music", replace(good, bandwidth=3500)) == ""
        assert clips.fault("music", replace(good, bandwidth=3500), 4000) != ""
        assert clips.fault("music", replace(good, rate=22_050)) != ""

    def test_of_the_same_sound_the_one_in_valid_stays(self) -> None:
        known = facts(44_100, [(0, 44_100)])
        learnt, measured = audio("a.wav"), audio("z.wav", split="valid")
        kept, dropped = clips.sift([(learnt, known), (measured, known)])
        assert [who for who, _ in kept] == [measured]
        assert [(drop.origin, drop.seconds) for drop in dropped] == [("a.wav", 1.0)]


NAMES = st.text("abcdefgh-", min_size=1, max_size=6)


class TestSplit:
    @given(st.sets(NAMES), st.sets(NAMES), st.floats(0, 1))
    def test_stays_when_others_come(self, some: set[str], more: set[str], share: float) -> None:
        before = {name: Splitter(share).split_of(name) for name in some}
        after = {name: Splitter(share).split_of(name) for name in some | more}
        assert before.items() <= after.items()

    def test_shares(self) -> None:
        splits = [Splitter(0.1).split_of(f"speaker {number}") for number in range(5000)]
        assert splits.count("valid") / 5000 == pytest.approx(0.1, abs=0.015)
        assert {Splitter(0.0).split_of(name) for name in "abc"} == {"train"}
        assert {Splitter(1.0).split_of(name) for name in "abc"} == {"valid"}
        assert Splitter(0.0, ["a"]).split_of("a", "train") == "valid"
        assert Splitter(1.0).split_of("a", "train") == "train"

    def test_a_speaker_is_on_one_side(self, tmp_path: Path) -> None:
        """In every class and folder; files of nobody are split one by one."""
        for folder in ("one", "two"):
            for label in ("speech", "music"):
                for who in [f"s{number}" for number in range(20)] + [""]:
                    for name in ("a", "b", "c"):
                        path = tmp_path / folder / label / who / f"{name}.wav"
                        path.parent.mkdir(parents=True, exist_ok=True)
                        path.write_bytes(b"x")
        found = [
            each
            for folder in ("one", "two")
            for each in of_folder(tmp_path / folder, "own", Splitter(0.4))
        ]
        assert len(found) == 2 * 2 * 21 * 3
        sides: dict[str, set[str]] = {}
        for each in found:
            sides.setdefault(each.speaker, set()).add(each.split)
        assert sides.pop("") == {"train", "valid"}
        assert all(len(side) == 1 for side in sides.values())
        assert set.union(*sides.values()) == {"train", "valid"}


class TestProbe:
    def test_facts(self, tmp_path: Path) -> None:
        rate = 32_000
        wave = np.concatenate([np.zeros(rate), tone(2, 3000, rate), np.zeros(2 * rate)])
        wave += np.where(np.arange(len(wave)) == 40_000, 0.3, 0)
        soundfile.write(tmp_path / "a.flac", wave, rate)
        found = probe(tmp_path / "a.flac")
        assert (found.error, found.rate, found.channels) == ("", rate, 1)
        assert found.samples == len(wave)
        assert found.peak == pytest.approx(np.abs(wave).max(), abs=1e-4)
        ((start, stop),) = found.spans
        assert start <= rate <= start + rate // 10
        assert stop - rate // 10 <= 3 * rate <= stop
        assert Facts.of(json.loads(json.dumps(found.__dict__))) == found

    @pytest.mark.parametrize("top", [3000, 9000, 20_000])
    def test_bandwidth(self, tmp_path: Path, top: int) -> None:
        spectrum = np.fft.rfft(np.random.default_rng(0).normal(size=3 * 44_100))
        spectrum[3 * top :] = 0
        soundfile.write(tmp_path / "a.wav", 0.1 * np.fft.irfft(spectrum), 44_100, "FLOAT")
        assert probe(tmp_path / "a.wav").bandwidth == pytest.approx(top, abs=150)

    def test_clipped_and_cancelling_channels(self, tmp_path: Path) -> None:
        loud = np.clip(3 * tone(1), -1, 1)
        soundfile.write(tmp_path / "loud.wav", loud, 44_100)
        assert probe(tmp_path / "loud.wav").clipped == pytest.approx(
            (abs(loud) >= 1).mean(), abs=0.01
        )
        soundfile.write(tmp_path / "apart.wav", np.stack([tone(1), -tone(1)], 1), 44_100)
        assert probe(tmp_path / "apart.wav").left
        assert probe(tmp_path / "apart.wav").peak > 0.3
        soundfile.write(tmp_path / "both.wav", np.stack([tone(1), tone(1)], 1), 44_100)
        assert not probe(tmp_path / "both.wav").left

    def test_the_digest_is_of_the_samples(self, tmp_path: Path) -> None:
        soundfile.write(tmp_path / "a.wav", tone(1), 44_100, "PCM_16")
        soundfile.write(
            tmp_path / "b.flac", soundfile.read(tmp_path / "a.wav")[0], 44_100, "PCM_16"
        )
        soundfile.write(tmp_path / "c.wav", tone(1, 441), 44_100, "PCM_16")
        one, same, other = (probe(tmp_path / name).digest for name in ("a.wav", "b.flac", "c.wav"))
        assert one == same != other

    def test_headerless_formats(self, tmp_path: Path) -> None:
        wave = tone(2, 440, 16_000).astype(np.float32)
        whole = np.rint(wave * 32767).astype("<i2")
        (tmp_path / "a.sln16").write_bytes(whole.tobytes())
        with av.open(str(tmp_path / "b.g722"), "w", format="g722") as container:
            stream = container.add_stream("g722", rate=16_000, layout="mono")
            frame = av.AudioFrame.from_ndarray(whole[None], "s16", "mono")
            frame.sample_rate = 16_000
            for packet in [*stream.encode(frame), *stream.encode(None)]:
                container.mux(packet)
        for name in ("a.sln16", "b.g722"):
            found = probe(tmp_path / name)
            assert (found.error, found.rate, found.channels) == ("", 16_000, 1)
            assert abs(found.samples - len(wave)) <= 40
            assert found.peak == pytest.approx(abs(wave).max(), abs=0.05)

    @pytest.mark.parametrize("content", [b"", b"hello", b"RIFF\x10\0\0\0WAVEfmt "])
    def test_what_cannot_be_read_says_so(self, tmp_path: Path, content: bytes) -> None:
        for name in ("a.wav", "a.g722"):
            (tmp_path / name).write_bytes(content)
        assert "a.wav" in probe(tmp_path / "a.wav").error
        if not content:
            assert probe(tmp_path / "a.g722").error

    @given(st.lists(st.tuples(st.sampled_from([-20.0, -60.0, -100.0]), st.integers(1, 50))))
    def test_sounding(self, runs: list[tuple[float, int]]) -> None:
        """Compare with a decision frame by frame."""
        given = np.float32([level for level, length in runs for _ in range(length)])
        on = given > max(given.max(initial=-200) - 50, -75)
        keep = on.copy()
        if on.any():
            first, last = np.flatnonzero(on)[[0, -1]]
            keep[max(0, first - 2) : last + 4] = True
            silent = 0
            for frame in range(first, len(given)):
                silent = 0 if on[frame] else silent + 1
                keep[frame] &= silent <= 20
        inside = np.zeros(len(given), bool)
        edges = [edge for span in sounding(given) for edge in span]
        for start, stop in sounding(given):
            inside[start:stop] = True
        assert edges == sorted(set(edges))
        np.testing.assert_array_equal(inside, keep)


class TestEncode:
    @given(st.data())
    def test_spans_of_blocks(self, data: st.DataObject) -> None:
        wave = np.arange(data.draw(st.integers(1, 200)), dtype=np.float32)
        edges = sorted(data.draw(st.sets(st.integers(0, len(wave)), min_size=2, max_size=9)))
        spans = [span for span in itertools.pairwise(edges) if data.draw(st.booleans())]
        cuts = sorted(data.draw(st.sets(st.integers(1, len(wave)), max_size=9)) | {len(wave)})
        blocks = (wave[a:b] for a, b in zip([0, *cuts], cuts, strict=False))
        for (start, stop), found in zip(spans, encode._spans(blocks, spans), strict=True):
            np.testing.assert_array_equal(found, wave[start:stop])

    @pytest.mark.parametrize("suffix", [".flac", ".opus"])
    def test_a_clip_is_its_source(self, tmp_path: Path, suffix: str) -> None:
        """Join two words, the second louder than full scale; the bytes are the same each time."""
        words = [tone(2, 300, 22_050), 4 * tone(1, 600, 22_050)]
        parts = []
        for number, word in enumerate(words):
            path = tmp_path / f"{number}.wav"
            soundfile.write(path, word, 22_050, "FLOAT")
            who = audio(path.name, path=path)
            parts.append(clips.Part(who, probe(path), ((0, len(word)),)))
        clip = clips.Clip(tuple(parts))
        for name in ("one", "two"):
            encode.make([(clip, tmp_path / f"{name}{suffix}")])
        one, two = (tmp_path / f"{name}{suffix}" for name in ("one", "two"))
        assert one.read_bytes() == two.read_bytes()
        wave, rate = soundfile.read(one)
        assert len(wave) / rate == pytest.approx(clip.seconds, abs=1e-3)
        assert encode.made(one).seconds == clip.seconds == pytest.approx(3.125, abs=1e-4)
        assert encode.made(one).bandwidth <= 11_025
        gap = wave[round(2.02 * rate) : round(2.1 * rate)]
        assert np.abs(gap).max() < 0.02
        for start, length, frequency, peak in ((0, 2, 300, 0.45), (2.125, 1, 600, 0.95)):
            piece = wave[round(start * rate) : round((start + length) * rate)]
            assert np.abs(piece).max() == pytest.approx(peak, abs=0.06)
            assert np.abs(np.fft.rfft(piece)).argmax() == pytest.approx(frequency * length, abs=2)


def invoke(*arguments: object) -> Result:
    """The command with `arguments`, in one process."""
    command = typer.Typer()
    command.command()(__main__.main)
    return CliRunner().invoke(command, [*map(str, arguments), "--workers", "1"])


def fetched(out: Path, *arguments: object) -> Result:
    found = invoke("--out", out, *arguments)
    assert found.exit_code == 0, found.output
    return found


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def content(out: Path) -> Files:
    """All that is in a set, without its cache."""
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and "cache" not in path.relative_to(out).parts
    }


ALL = ("--packages", "talk-data,band-data,noise-data", "--valid", "noise-data")


class TestFetch:
    @pytest.mark.slow
    def test_packages_to_shards(self, archive: Archive, tmp_path: Path) -> None:
        out = tmp_path / "out"
        printed = fetched(out, *ALL).output
        manifest = rows(out / "manifest.csv")
        assert ",".join(manifest[0]) == (  # as in the set that the shipped weights learnt from
            "shard,split,class,path,seconds,bandwidth_hz,speaker,package,version,licence,"
            "origin_path,source_rate"
        )
        with tarfile.open(out / "train-0.tar") as one, tarfile.open(out / "valid.tar") as other:
            inside = {
                (shard, name)
                for shard, tar in (("train-0.tar", one), ("valid.tar", other))
                for name in tar.getnames()
            }
        assert inside == {(row["shard"], row["path"]) for row in manifest}
        kinds = {
            (r["package"], r["split"], r["class"], r["speaker"], r["licence"]) for r in manifest
        }
        assert kinds == {
            ("talk-data", "train", "speech", "anna", "CC-BY-SA-3.0"),
            ("talk-data", "train", "speech", "bert", "GPL-2+"),
            ("band-data", "train", "music", "", "public-domain"),
            ("noise-data", "valid", "sound", "", "GPL-2+"),
        }
        words = [row for row in manifest if row["speaker"] == "anna"]
        assert sum(len(row["origin_path"].split(";")) for row in words) == 9
        music = [row for row in manifest if row["class"] == "music"]
        assert [row["path"] for row in music] == [
            "train/music/band-data_0000.flac",
            "train/music/band-data_0001.flac",
        ]
        assert sum(float(row["seconds"]) for row in music) == pytest.approx(33.4, abs=0.1)
        assert music[0]["origin_path"] == "usr/share/band/data.pk3/music/long.flac"
        cache = AudioCache(build_cache(sorted(out.glob("*.tar")), tmp_path / "cached", workers=1))
        lengths = {clip.name: clip.length / SAMPLE_RATE for clip in cache.clips}
        assert lengths == {
            row["path"]: pytest.approx(float(row["seconds"]), abs=1e-3) for row in manifest
        }
        assert cache.classes == ("music", "sound", "speech")
        why = {
            (row["origin_path"].split("/")[-1], row["reason"]) for row in rows(out / "dropped.csv")
        }
        assert {
            ("same.wav", "the same samples as another file"),
            ("nothing.wav", "silent"),
            ("x.wav", "licence not known to be free: CC-BY-NC-3.0"),
            ("long.flac", "silence"),
        } <= why
        assert any(name == "broken.wav" and "cannot be decoded" in said for name, said in why)
        table = {row["package"]: row for row in rows(out / "LICENCES.csv")}
        assert table["talk-data"]["licences"] == "CC-BY-SA-3.0; GPL-2+"
        assert (table["noise-data"]["splits"], table["noise-data"]["sound"]) == ("valid", "0.2")
        assert (out / "copyright" / "talk-data").read_text().strip() == DEP5.strip()
        assert "| band-data | 1 |" in (out / "LICENCES.md").read_text()
        assert f"{len(manifest)} clips" in printed
        assert "licence not known to be free: 1 files" in printed

    @pytest.mark.slow
    def test_again_does_nothing_and_a_change_makes_another(
        self, archive: Archive, tmp_path: Path
    ) -> None:
        out = tmp_path / "out"
        fetched(out, *ALL)
        before, downloads = content(out), archive.downloads()
        assert "complete already" in fetched(out, *ALL).output
        assert content(out) == before
        fetched(out, *ALL, "--shard-mb", 1, "--format", "opus")
        assert archive.downloads() == downloads  # the cache has them
        assert {row["path"][-5:] for row in rows(out / "manifest.csv")} == {".opus"}
        (out / "train-7.tar").write_bytes(b"mine")
        found = invoke("--out", out, *ALL)
        assert found.exit_code == 1
        assert "train-7.tar, which this command did not make" in found.output
        (out / "train-7.tar").unlink()
        fetched(out, *ALL)
        assert content(out) == before

    @pytest.mark.slow
    def test_shards_are_cut_and_old_ones_go(self, archive: Archive, tmp_path: Path) -> None:
        out = tmp_path / "out"
        fetched(out, *ALL, "--shard-mb", 2)
        names = sorted(path.name for path in out.glob("*.tar"))
        assert names == [*(f"train-{n}.tar" for n in range(len(names) - 1)), "valid.tar"]
        assert len(names) > 2
        assert all(path.stat().st_size < 2.5e6 for path in out.glob("train-*.tar"))
        listed = {row["path"]: row["shard"] for row in rows(out / "manifest.csv")}
        for name in names:
            with tarfile.open(out / name) as tar:
                assert all(listed[member] == name for member in tar.getnames())
        fetched(out, *ALL)
        assert sorted(path.name for path in out.glob("*.tar")) == ["train-0.tar", "valid.tar"]

    @pytest.mark.slow
    @pytest.mark.parametrize("nth", [1, 3])
    @pytest.mark.parametrize(
        ("where", "what"),
        [
            (apt, "_sha256"),
            (unpack, "_save"),
            (build, "probe"),
            (encode, "_flac"),
            (shards, "row_of"),
            (shards, "os.replace"),
        ],
    )
    def test_interrupted_anywhere_it_goes_on(
        self,
        archive: Archive,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        whole: Files,
        where: object,
        what: str,
        nth: int,
    ) -> None:
        """The bytes are those of a run that nothing stopped; nothing in between looks whole."""
        out = tmp_path / "out"
        with monkeypatch.context() as patch:
            interrupt(patch, where, what, nth)
            found = invoke("--out", out, *ALL)
            assert found.exit_code == 130, found.output
        assert json.loads(content(out).get("set.json", b"{}")).get("key", "") == ""
        fetched(out, *ALL)
        assert content(out) == whole
        assert not list((out / "cache").rglob("partial*/*"))

    @pytest.mark.slow
    def test_two_processes_make_the_same(
        self, archive: Archive, tmp_path: Path, whole: Files
    ) -> None:
        out, names = tmp_path / "out", ["talk-data", "band-data", "noise-data"]
        splitter = Splitter(0.06, ["noise-data"])
        request = build.Request(out, out / "cache", names, splitter=splitter, workers=2)
        build.build(request, Apt(), Console(file=io.StringIO()))
        assert content(out) == whole

    @pytest.mark.slow
    def test_hours_and_all(self, archive: Archive, tmp_path: Path) -> None:
        fetched(tmp_path / "some", *ALL, "--hours", 0.01)
        seconds = sum(float(row["seconds"]) for row in rows(tmp_path / "some" / "manifest.csv"))
        assert 30 < seconds <= 36
        (tmp_path / "list").write_text(TestRules.HEAD + "talk-data,valid,speech,0.2,CC0,/voices/\n")
        for extra, expected in (((), 8), (("--all",), 18)):
            fetched(tmp_path / "few", "--packages", tmp_path / "list", *extra)
            found = rows(tmp_path / "few" / "manifest.csv")
            assert {(row["split"], row["licence"]) for row in found} == {("valid", "CC0")}
            assert sum(float(row["seconds"]) for row in found) > expected

    @pytest.mark.slow
    def test_a_folder_of_ones_own(self, tmp_path: Path) -> None:
        mine = tmp_path / "mine"
        for name, wave in {
            "speech/anna/1.w64": tone(3),
            "speech/anna/2.flac": tone(4, 300),
            "speech/bert/x/1.wav": tone(9, 200),
            "music/song.ogg": tone(40, 500),
            "notes/a.wav": tone(9),
        }.items():
            (mine / name).parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(mine / name, wave, 44_100)
        out = tmp_path / "out"
        printed = fetched(out, "--folder", mine, "--licence", "by contract", "--valid", "bert")
        assert "1 files of" in printed.output
        assert "notes/a.wav" in printed.output
        found = rows(out / "manifest.csv")
        assert [(r["path"], r["speaker"], r["licence"], r["package"]) for r in found] == [
            ("train/music/mine_0000.flac", "", "by contract", "mine"),
            ("train/music/mine_0001.flac", "", "by contract", "mine"),
            ("train/speech/mine-anna_0000.flac", "anna", "by contract", "mine"),
            ("valid/speech/mine-bert_0000.flac", "bert", "by contract", "mine"),
        ]
        assert sum(float(row["seconds"]) for row in found) == pytest.approx(56.125, abs=0.2)
        soundfile.write(mine / "speech/bert/x/1.wav", tone(10, 210), 44_100)
        fetched(out, "--folder", mine, "--valid", "bert")
        assert float(rows(out / "manifest.csv")[-1]["seconds"]) == pytest.approx(10, abs=0.1)
        fetched(out, "--folder", mine, "--valid", "bert", "--licence", "another")
        assert {row["licence"] for row in rows(out / "manifest.csv")} == {"another"}


def interrupt(patch: pytest.MonkeyPatch, where: object, what: str, nth: int) -> None:
    """The nth call of a function ends as Ctrl-C does."""
    *owner, name = what.split(".")
    target = where
    if owner:  # a module, for this caller alone
        target = SimpleNamespace(**vars(getattr(where, owner[0])))
        patch.setattr(where, owner[0], target)
    real: Callable[..., object] = getattr(target, name)
    calls: Iterator[int] = iter(range(1, 10**6))

    def called(*arguments: object, **named: object) -> object:
        if next(calls) == nth:
            raise KeyboardInterrupt
        return real(*arguments, **named)

    patch.setattr(target, name, called)


class TestErrors:
    """One sentence, a status of failure, and no shards."""

    def refused(self, tmp_path: Path, *arguments: object) -> str:
        out = tmp_path / "out"
        found = invoke("--out", out, *arguments)
        assert found.exit_code == 1, found.output
        assert "Traceback" not in found.output
        assert not list(out.glob("*.tar"))
        assert not (out / "manifest.csv").exists()
        (line,) = [line for line in found.output.splitlines() if line.startswith("error: ")]
        return line

    def test_no_apt(
        self, archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        said = self.refused(tmp_path, *ALL)
        assert "apt-cache is not on this system" in said
        assert "--folder" in said

    def test_unknown_package(self, archive: Archive, tmp_path: Path) -> None:
        said = self.refused(tmp_path, "--packages", "talk-data,no-such,nor-this")
        assert "apt knows no package no-such, nor-this" in said

    def test_not_free_package(self, archive: Archive, tmp_path: Path) -> None:
        assert "sold-data (non-free)" in self.refused(tmp_path, "--packages", "sold-data")

    @pytest.mark.parametrize(
        ("apt_says", "expected"),
        [
            ("E: Failed to fetch x  Could not connect to h:80 (1.2.3.4)", "is there a network?"),
            ("E: Failed to fetch x  Temporary failure resolving 'h'", "is there a network?"),
            ("E: Failed to fetch x  404  Not Found [IP: 1.2.3.4]", "no longer in the archive"),
            ("E: Failed to fetch x  Hash Sum mismatch", "so it was refused"),
            ("E: Failed to fetch x  Hash Sum mismatch\n - SHA256:b404d1\n", "so it was refused"),
            ("E: You don't have enough free space in /x/.", "the disk is full"),
            ("E: Something else", "apt failed: Something else"),
        ],
    )
    def test_apt_fails(
        self,
        archive: Archive,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        apt_says: str,
        expected: str,
    ) -> None:
        monkeypatch.setenv("APT_FAILS", apt_says)
        said = self.refused(tmp_path, *ALL)
        assert expected in said
        assert "talk-data=1" in said

    @pytest.mark.slow
    def test_another_file_than_the_archive_lists(self, archive: Archive, tmp_path: Path) -> None:
        path = archive.folder / "talk-data.deb"
        right = path.read_bytes()
        path.write_bytes(right[:-1] + b"?")
        assert "its sha256 differs" in self.refused(tmp_path, *ALL)
        path.write_bytes(right)
        fetched(tmp_path / "out", *ALL)

    def test_a_damaged_package(self, archive: Archive, tmp_path: Path) -> None:
        archive.add("bad-data", {"usr/a.wav": coded(tone(9))})
        whole = (archive.folder / "bad-data.deb").read_bytes()
        archive.records.pop()
        (archive.folder / "bad-data.deb").write_bytes(whole[:-2000])
        digest = hashlib.sha256(whole[:-2000]).hexdigest()
        record = f"Package: bad-data\nVersion: 1\nSection: x\nSize: 1\nSHA256: {digest}\n"
        (archive.folder / "Packages").write_text(record)
        assert "is damaged" in self.refused(tmp_path, "--packages", "bad-data")
        assert not list((tmp_path / "out/cache/packages").iterdir())

    @pytest.mark.slow
    def test_disk_full(
        self, archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        usage = shutil.disk_usage(tmp_path)._replace(free=1000)
        with monkeypatch.context() as patch:
            patch.setattr(shutil, "disk_usage", lambda path: usage)
            said = self.refused(tmp_path, *ALL)
        assert "they need up to" in said
        assert "--cache" in said

        def full(*_: object) -> bytes:
            raise OSError(28, "No space left on device", "x")

        with monkeypatch.context() as patch:
            patch.setattr(encode, "_flac", full)
            assert "the disk is full; free some space" in self.refused(tmp_path, *ALL)
        fetched(tmp_path / "out", *ALL)

    def test_nothing_is_left(self, archive: Archive, tmp_path: Path) -> None:
        archive.add("mute-data", {"usr/a.wav": coded(tone(9))})
        said = self.refused(tmp_path, "--packages", "mute-data")
        assert said.endswith("nothing is left to make clips of: licence unknown")

    def test_usage(self, archive: Archive, tmp_path: Path) -> None:
        for wrong in (("--hours", 0), ("--hours", 1, "--all"), ("--no-such",)):
            found = invoke("--out", tmp_path / "out", *ALL, *wrong)
            assert found.exit_code == 2, found.output
            assert wrong[0] in found.output
            assert not (tmp_path / "out").exists()

    def test_folders_without_audio(self, archive: Archive, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        assert "has no audio under" in self.refused(tmp_path, "--folder", tmp_path / "empty")
        assert "is not a folder" in self.refused(tmp_path, "--folder", tmp_path / "no")
        soundfile.write(tmp_path / "empty" / "a.wav", tone(1), 44_100)
        assert "has no audio under" in self.refused(tmp_path, "--folder", tmp_path / "empty")


def test_a_suite_has_apt_folders_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under a relative cache too; fetched once, and not taken for fetched when that failed."""
    asked: list[tuple[str, ...]] = []

    def run(self: Apt, *command: str) -> str:
        asked.append((*command, *self._options))
        if len(asked) == 1:
            raise FetchError("no network")
        return ""

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Apt, "_run", run)
    with pytest.raises(FetchError):
        Apt.of_suite(Path("cache/apt"), "bookworm")
    for _ in range(2):
        Apt.of_suite(Path("cache/apt"), "bookworm")
    assert len(asked) == 2
    Apt.of_suite(Path("cache/apt"), "trixie")
    assert len(asked) == 3
    folders = [option for option in asked[0] if option.startswith("Dir::")]
    assert len(folders) == 5
    assert all(option.partition("=")[2].startswith("/") for option in folders)
    assert (tmp_path / "cache/apt/sources.list").read_text().endswith(" trixie main\n")
    assert (tmp_path / "cache/apt/state/lists/partial").is_dir()


def test_names_do_not_lead_out_of_the_folder(tmp_path: Path) -> None:
    tricks = {"../../escaped.wav": b"x", "ok/../../../escaped.wav": b"x", "/abs.wav": b"x"}
    path = tmp_path / "in" / "a.deb"
    path.parent.mkdir()
    path.write_bytes(deb({"usr/good.wav": b"x", "usr/a.zip": zipped({**tricks, "b.wav": b"x"})}))
    if shutil.which("dpkg-deb") is None:
        pytest.skip("dpkg-deb is not on this system; the other tests have a stand-in")
    folder = unpack.unpack(path, tmp_path / "in" / "out")
    assert unpack.audio_files(folder) == ["files/usr/a.zip/b.wav", "files/usr/good.wav"]
    assert not list(tmp_path.glob("*.wav"))


@pytest.mark.skipif(shutil.which("apt-get") is None, reason="there is no apt on this system")
def test_the_real_apt(tmp_path: Path, archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looked up in, and downloaded from, a repository on disk; what was altered is refused."""
    monkeypatch.setenv("PATH", os.environ["PATH"].partition(os.pathsep)[2])
    folder = tmp_path / "apt"
    for name in ("state/lists/partial", "cache/archives/partial", "debs"):
        (folder / name).mkdir(parents=True)
    (folder / "status").touch()
    (folder / "sources").write_text(f"deb [trusted=yes] copy:{archive.folder} ./\n")
    settings = {
        "Dir::State": folder / "state",
        "Dir::State::status": folder / "status",
        "Dir::Cache": folder / "cache",
        "Dir::Etc::SourceList": folder / "sources",
        "Dir::Etc::SourceParts": "/dev/null",
    }
    real = Apt([part for name, value in settings.items() for part in ("-o", f"{name}={value}")])
    real._run("apt-get", "-qq", "update")
    first, second = real.look_up(["noise-data", "talk-data"])
    assert (first.name, first.source, first.version, first.unpacked) == (
        "noise-data",
        "noise",
        "1",
        9 * 1024,
    )
    path = real.download(first, folder / "debs")
    assert path.read_bytes() == (archive.folder / "noise-data.deb").read_bytes()
    with pytest.raises(InputError, match="apt knows no package no-such"):
        real.look_up(["noise-data", "no-such"])
    (archive.folder / "talk-data.deb").write_bytes(b"another file")
    with pytest.raises(FetchError, match="talk-data=1: the download is not what the archive lists"):
        real.download(second, folder / "debs")
    assert [file.name for file in (folder / "debs").glob("*.deb")] == [path.name]
