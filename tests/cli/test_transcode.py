"""`melcap encode`, `decode` and `transcode`: what becomes of files and folders."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path

import pytest
import soundfile

from tests.cli.helpers import DATA, Cli, clip, names, refused


class TestRoundTrip:
    @pytest.mark.parametrize(
        ("rate", "channels"), [(44100, 1), (44100, 2), (8000, 1), (37800, 3), (96000, 2)]
    )
    def test_rate_channels_and_length_survive(
        self, melcap_cli: Cli, tmp_path: Path, rate: int, channels: int
    ) -> None:
        source = clip(tmp_path / "a.wav", rate, channels)
        assert melcap_cli("encode", source).exit_code == 0
        (tmp_path / "a.melcap").rename(tmp_path / "b.melcap")
        assert melcap_cli("decode", tmp_path / "b.melcap").exit_code == 0
        before, after = soundfile.info(source), soundfile.info(tmp_path / "b.wav")
        assert (after.samplerate, after.channels, after.frames) == (rate, channels, before.frames)
        assert names(tmp_path) == ["a.wav", "b.melcap", "b.wav"]

    @pytest.mark.slow
    def test_transcode_is_encode_and_decode(self, melcap_cli: Cli, tmp_path: Path) -> None:
        source = DATA / "music.flac"
        kept = tmp_path / "new" / "folder" / "both.melcap"
        result = melcap_cli("transcode", source, "-o", kept.with_suffix(".wav"), "--keep")
        assert result.exit_code == 0
        melcap_cli("encode", source, "-o", tmp_path / "one.melcap")
        melcap_cli("decode", tmp_path / "one.melcap", "-o", tmp_path / "one.wav")
        assert kept.read_bytes() == (tmp_path / "one.melcap").read_bytes()
        assert kept.with_suffix(".wav").read_bytes() == (tmp_path / "one.wav").read_bytes()

    def test_transcode_leaves_audio_only(
        self, melcap_cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        scratch = tmp_path / "scratch"
        scratch.mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(scratch))
        source = clip(tmp_path / "a.wav")
        assert melcap_cli("transcode", source, "-o", tmp_path / "b.flac").exit_code == 0
        assert names(tmp_path) == ["a.wav", "b.flac"]
        assert soundfile.info(tmp_path / "b.flac").format == "FLAC"
        assert not list(scratch.iterdir())

    @pytest.mark.parametrize("command", ["decode", "transcode"])
    def test_another_rate_and_format(
        self, melcap_cli: Cli, tmp_path: Path, tokens: Path, command: str
    ) -> None:
        source = tokens if command == "decode" else DATA / "speech.flac"
        out = tmp_path / "out"
        result = melcap_cli(
            command, source, "-o", out, "--sample-rate", 16000, "--format", "flac", "--json"
        )
        (record,) = json.loads(result.stdout)["files"]
        info = soundfile.info(out / "speech.flac")
        assert (info.format, info.samplerate, info.frames) == ("FLAC", 16000, 48000)
        assert (record["sample_rate"], record["seconds"]) == (16000, 3.0)

    def test_json_of_transcode(self, melcap_cli: Cli, tmp_path: Path) -> None:
        result = melcap_cli(
            "transcode", DATA / "speech.flac", "-o", tmp_path / "s.wav", "--keep", "--json"
        )
        (record,) = json.loads(result.stdout)["files"]
        assert record["source"] == str(DATA / "speech.flac")
        assert record["target"] == str(tmp_path / "s.wav")
        assert record["tokens"] == str(tmp_path / "s.melcap")
        size = (tmp_path / "s.melcap").stat().st_size
        assert record["kbps"] == pytest.approx(size * 8 / 1000 / 3)
        assert record["encode_speed"] > 0
        assert record["decode_speed"] > 0

    def test_a_line_of_results_unless_quiet(self, melcap_cli: Cli, tmp_path: Path) -> None:
        source = clip(tmp_path / "a.wav")
        result = melcap_cli("encode", source)
        assert re.fullmatch(
            r".*a\.wav -> .*a\.melcap: 0\.30 s, 1 ch, 44100 Hz, [\d.]+ kbps, "
            r"encoded [\d.]+x real time\n",
            result.stdout,
        )
        result = melcap_cli("encode", source, "--force", "--quiet")
        assert (result.exit_code, result.output) == (0, "")


class TestFolders:
    def test_structure_is_kept(self, melcap_cli: Cli, tmp_path: Path) -> None:
        music = tmp_path / "music"
        for name in ("a.wav", "deep/er/b.FLAC", "deep/c.wav", ".hidden.wav", ".trash/d.wav"):
            clip(music / name)
        (music / "notes.txt").write_text("no audio")
        out = tmp_path / "out"
        result = melcap_cli("encode", music, "-o", out, "--json")
        assert names(out) == ["a.melcap", "deep/c.melcap", "deep/er/b.melcap"]
        report = json.loads(result.stdout)
        assert [Path(record["source"]).name for record in report["files"]] == [
            "a.wav",
            "c.wav",
            "b.FLAC",
        ]
        assert report["failed"] == []
        assert melcap_cli("decode", out).exit_code == 0
        assert soundfile.info(out / "deep" / "er" / "b.wav").frames == 13231

    def test_the_output_folder_is_no_input(self, melcap_cli: Cli, tmp_path: Path) -> None:
        clip(tmp_path / "a.wav")
        for _ in range(2):
            done = melcap_cli("transcode", tmp_path, "-o", tmp_path / "out", "--force")
            assert done.exit_code == 0
        assert names(tmp_path) == ["a.wav", "out/a.wav"]

    def test_the_same_file_twice_is_done_once(self, melcap_cli: Cli, tmp_path: Path) -> None:
        source = clip(tmp_path / "a.wav")
        result = melcap_cli("encode", tmp_path, source, "--json")
        assert len(json.loads(result.stdout)["files"]) == 1

    def test_a_bad_file_does_not_stop_the_rest(self, melcap_cli: Cli, tmp_path: Path) -> None:
        music = tmp_path / "music"
        for name in ("a.wav", "c.wav"):
            clip(music / name)
        (music / "b").mkdir()
        (music / "b" / "b.wav").write_bytes(b"not audio")
        out = tmp_path / "out"
        result = melcap_cli("encode", music, "-o", out, "--json")
        assert result.exit_code == 1
        assert names(out) == ["a.melcap", "c.melcap"]
        assert not (out / "b").exists()
        report = json.loads(result.stdout)
        assert len(report["files"]) == 2
        (failure,) = report["failed"]
        assert failure["source"] == str(music / "b" / "b.wav")
        assert result.stderr == f"error: {failure['error']}\n1 of 3 files failed\n"

    def test_two_files_for_one_name(self, melcap_cli: Cli, tmp_path: Path) -> None:
        clip(tmp_path / "b.wav")
        clip(tmp_path / "a.wav")
        clip(tmp_path / "a.flac")
        refused(melcap_cli("encode", tmp_path), "a.wav", "a.flac", "a.melcap")
        assert names(tmp_path) == ["a.flac", "a.wav", "b.wav"]

    def test_two_folders_for_one_name(self, melcap_cli: Cli, tmp_path: Path) -> None:
        one, two = clip(tmp_path / "1" / "a.wav"), clip(tmp_path / "2" / "a.wav")
        out = tmp_path / "out"
        refused(melcap_cli("encode", tmp_path / "1", tmp_path / "2", "-o", out), one, two)
        assert not out.exists()

    def test_an_input_is_never_an_output(self, melcap_cli: Cli, tmp_path: Path) -> None:
        source = clip(tmp_path / "a.wav")
        other = clip(tmp_path / "b" / "a.flac")
        before = source.read_bytes()
        for inputs, out in (
            ([source], source),
            ([tmp_path], tmp_path),
            ([source, other], tmp_path),
        ):
            result = melcap_cli("transcode", *inputs, "-o", out, "--force")
            refused(result, source)
            assert source.read_bytes() == before

    @pytest.mark.parametrize("out", ["x.melcap", "x.dir"])
    def test_many_files_need_a_folder(self, melcap_cli: Cli, tmp_path: Path, out: str) -> None:
        clip(tmp_path / "in" / "a.wav")
        refused(melcap_cli("encode", tmp_path / "in", "-o", tmp_path / out), out)
        done = melcap_cli("encode", tmp_path / "in", "-o", f"{tmp_path / out}/")
        assert done.exit_code == 0
        assert names(tmp_path / out) == ["a.melcap"]

    @pytest.mark.parametrize(
        ("command", "out"), [("encode", "x.mel"), ("transcode", "x.mp3"), ("transcode", "x.melcap")]
    )
    def test_an_unknown_suffix(
        self, melcap_cli: Cli, tmp_path: Path, command: str, out: str
    ) -> None:
        source = clip(tmp_path / "a.wav")
        refused(melcap_cli(command, source, "-o", tmp_path / out), out, "must end in")
        assert names(tmp_path) == ["a.wav"]

    def test_a_folder_with_nothing_to_do(self, melcap_cli: Cli, tmp_path: Path) -> None:
        refused(melcap_cli("decode", tmp_path), tmp_path, "holds no .melcap files")

    def test_a_file_where_a_folder_must_be(self, melcap_cli: Cli, tmp_path: Path) -> None:
        source = clip(tmp_path / "a.wav")
        (tmp_path / "out").write_text("a file")
        for command, out in (("encode", "out/"), ("plot", "out/x.png")):
            refused(melcap_cli(command, source, "-o", f"{tmp_path}/{out}"), tmp_path / "out")


@pytest.mark.slow
def test_what_a_folder_holds_beside_audio_is_counted(melcap_cli: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "mixed"
    for name in ("a.wav", "sub/b.WAV"):
        clip(folder / name)
    for name in ("notes.txt", "sub/more.txt", "list", ".hidden"):
        (folder / name).write_text("no audio")
    done = melcap_cli("encode", folder, "--out", tmp_path / "out")
    assert done.exit_code == 0
    assert done.stderr == "passed over: 2 .txt, 1 hidden files, 1 without a suffix\n"
    told = json.loads(melcap_cli("encode", folder, "--json", "--out", tmp_path / "json").stdout)
    assert told["passed_over"] == {".txt": 2, "hidden files": 1, "without a suffix": 1}
    assert melcap_cli("encode", folder, "--quiet", "--out", tmp_path / "quiet").stderr == ""
    refused(melcap_cli("decode", folder), "holds no .melcap files: it has 2 .wav, 2 .txt, 1 hidden")
