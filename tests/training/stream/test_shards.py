"""Shards: patterns, identity, commands, and what is noticed of damage."""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melcap.errors import InputError
from melcap.training.stream.shards import TAR_ERRORS, Shards, expand_braces, opened
from melcap.training.stream.tar_clips import UNLABELLED, clips_in
from tests.training.stream.helpers import offset_of, wav, write_tar


@pytest.mark.parametrize(
    "pattern",
    [
        "a.tar",
        "a-{0..3}.tar",
        "a-{008..011}.tar",
        "a-{3..1}.tar",
        "a-{1..010}.tar",
        "{a,b,}-{0..1}.tar",
        "{x}-{a,b}",
        "{a,b",
        "a{}b{1..2}",
        "{01..02}{c,d}{5..5}",
    ],
)
def test_braces_are_those_of_bash(pattern: str) -> None:
    shown = subprocess.run(
        ["bash", "-c", f"printf '%s\\n' {pattern}"], capture_output=True, text=True, check=True
    )
    assert expand_braces(pattern) == shown.stdout.split("\n")[:-1]


def test_a_command_may_have_variables_and_blocks() -> None:
    command = "pipe:cat ${FOLDER}/{0..1}.tar | awk '{print}'"
    assert expand_braces(command) == [
        f"pipe:cat ${{FOLDER}}/{n}.tar | awk '{{print}}'" for n in (0, 1)
    ]


class TestIdentity:
    def test_neither_order_nor_folder_nor_repetition_matters(self, tmp_path: Path) -> None:
        for name in ("a", "b", "c"):
            write_tar(tmp_path / "one" / f"{name}.tar", {"x.wav": wav(100)})
        shutil.copytree(tmp_path / "one", tmp_path / "two")
        first = Shards.of([f"{tmp_path}/one/{{a,b,c}}.tar"])
        again = Shards.of([f"{tmp_path}/two/{name}.tar" for name in "cabb"])
        assert first.key == again.key
        assert [Path(name).stem for name in again.names] == ["a", "b", "c"]

    def test_sizes_and_names_do(self, tmp_path: Path) -> None:
        keys = set()
        for name, samples in (("a", 100), ("a", 9000), ("b", 100)):
            path = write_tar(tmp_path / f"{name}.tar", {"x.wav": wav(samples)})
            keys.add(Shards.of([path]).key)
        keys.add(Shards.of([path, "pipe:cat x"]).key)
        keys.add(Shards.of([path, "pipe:cat y"]).key)
        assert len(keys) == 5

    def test_refuses(self, tmp_path: Path) -> None:
        (tmp_path / "empty.tar").touch()
        for patterns, message in (
            ([], "no shards"),
            ([f"{tmp_path}/none-{{0..2}}.tar"], "none-0.tar cannot be read: No such file"),
            ([str(tmp_path)], "is a folder, not a tar"),
            ([f"{tmp_path}/empty.tar"], "is empty"),
        ):
            with pytest.raises(InputError, match=message):
                Shards.of(patterns)


class TestClasses:
    def labels(self, path: Path, members: dict[str, bytes]) -> list[tuple[str, str, str]]:
        shard = write_tar(path / "a.tar", members)
        return [(clip.name, clip.label, clip.fault) for clip in clips_in(shard)]

    def test_the_folder_is_the_class(self, tmp_path: Path) -> None:
        members = {"train/music/a.wav": wav(9), "train/music/a.cls": b"speech"}
        assert self.labels(tmp_path, members) == [("train/music/a.wav", "music", "")]

    def test_a_sample_names_its_class_before_or_after_the_clip(self, tmp_path: Path) -> None:
        members = {
            "a.cls": b"music\n",
            "a.wav": wav(9),
            "b.wav": wav(9),
            "b.JSON": json.dumps({"text": "x", "label": 3}).encode(),
            "c.left.wav": wav(9),
            "c.right.wav": wav(9),
            "c.cls": b"sound",
            "d.wav": wav(9),
            "e.json": b"{}",
            "e.wav": wav(9),
            "notes.txt": b"f.wav",
        }
        found = {name: label for name, label, _ in self.labels(tmp_path, members)}
        assert found == {
            "a.wav": "music",
            "b.wav": "3",
            "c.left.wav": "sound",
            "c.right.wav": "sound",
            "d.wav": UNLABELLED,
            "e.wav": UNLABELLED,
        }

    @pytest.mark.parametrize("content", [b"{", b"[]", b"\xff"])
    def test_metadata_that_cannot_be_read_are_a_fault(self, tmp_path: Path, content: bytes) -> None:
        ((_, _, fault),) = self.labels(tmp_path, {"a.wav": wav(9), "a.json": content})
        assert fault.startswith("a.json does not name its class")

    def test_the_content_is_that_of_the_clip(self, tmp_path: Path) -> None:
        members = {f"{n}.wav": wav(100 + n, n) for n in range(5)} | {"4.json": b"{}"}
        shard = write_tar(tmp_path / "a.tar", members)
        found = {clip.number: (clip.name, clip.audio.read()) for clip in clips_in(shard, 2)}
        assert found == {n: (f"{n}.wav", members[f"{n}.wav"]) for n in (2, 3, 4)}


MEMBERS = {f"music/{n}.wav": wav(700 + 300 * n, n) for n in range(4)}


def read(shard: str) -> tuple[list[str], str]:
    """Return the names of the clips that come, and the error at the end."""
    names = []
    try:
        for clip in clips_in(shard):
            assert clip.audio.read() == MEMBERS[clip.name]
            names.append(clip.name)
    except TAR_ERRORS as error:
        return names, str(error)
    return names, ""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(write_tar(tmp_path_factory.mktemp("shards") / "a.tar", MEMBERS))


class TestDamage:
    @given(share=st.floats(0, 1, exclude_max=True))
    def test_a_cut_is_noticed_wherever_it_is(self, whole: Path, share: float) -> None:
        with tarfile.open(whole) as tar:
            ends = [member.offset_data + member.size for member in tar]
        length = int(share * (ends[-1] + 512))
        cut = whole.with_name("cut.tar")
        cut.write_bytes(whole.read_bytes()[:length])
        names, error = read(str(cut))
        assert names == list(MEMBERS)[: sum(end <= length for end in ends)]
        assert error

    def test_a_cut_between_two_members_is_noticed(self, whole: Path) -> None:
        length = offset_of(str(whole), 2)
        cut = whole.with_name("cut.tar")
        cut.write_bytes(whole.read_bytes()[:length])
        assert read(str(cut)) == (list(MEMBERS)[:2], "the mark at the end of a tar is missing")
        assert read(f"pipe:head -c {length} {whole}") == read(str(cut))

    def test_a_damaged_header_is_noticed(self, whole: Path) -> None:
        at = offset_of(str(whole), 2)
        content = bytearray(whole.read_bytes())
        content[at : at + 512] = b"?" * 512
        damaged = whole.with_name("damaged.tar")
        damaged.write_bytes(content)
        names, error = read(str(damaged))
        assert names == list(MEMBERS)[:2]
        assert "damaged header" in error

    def test_a_tar_without_audio_is_refused(self, tmp_path: Path) -> None:
        assert read(write_tar(tmp_path / "a.tar", {"a.txt": b"x"})) == (
            [],
            "it holds no audio files",
        )


class TestCommands:
    def test_their_output_is_a_shard(self, whole: Path) -> None:
        assert read(f"pipe:cat {whole}") == (list(MEMBERS), "")
        assert read(f"pipe:gzip -c {whole} | gzip -dc") == (list(MEMBERS), "")

    def test_a_failure_after_the_last_byte_is_noticed(self, whole: Path) -> None:
        names, error = read(f"pipe:cat {whole}; echo no route to the store >&2; exit 3")
        assert names == list(MEMBERS)
        assert error == "its command failed with status 3: no route to the store"

    def test_a_failure_part_way_is_that_of_the_command(self, whole: Path) -> None:
        names, error = read(f"pipe:head -c 5000 {whole}; exit 7")
        assert names == list(MEMBERS)[:2]
        assert error == "its command failed with status 7: it wrote no error"

    def test_it_ends_with_the_block(self, tmp_path: Path) -> None:
        mark = tmp_path / "pid"
        block = opened(f"pipe:echo $$ >{mark}; yes & sleep 60")
        block.__enter__()
        while not mark.exists() or not mark.read_text().strip():
            time.sleep(0.01)
        assert states(mark) != set()
        assert not block.__exit__(KeyError, KeyError(), None)
        ends = time.monotonic() + 20
        while states(mark) - {"Z"} and time.monotonic() < ends:
            time.sleep(0.05)
        assert states(mark) <= {"Z"}


def states(mark: Path) -> set[str]:
    """Return the states of the processes in a group: S for one that sleeps, Z for one that died."""
    command = ["ps", "-e", "-o", "pgid=,stat="]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    groups = zip(listed[::2], listed[1::2], strict=True)
    return {state[0] for group, state in groups if group == mark.read_text().strip()}
