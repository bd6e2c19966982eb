"""`-` on the command line: stdin and stdout."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
from typer.testing import CliRunner, Result

from melcap.cli import commands as cli
from melcap.io import container
from tests.cli.helpers import clip, environment, refused


class TestPipes:
    """`-` is stdin and stdout: the same bytes as with files."""

    @staticmethod
    def call(small_weights: Path, *words: object, given: bytes = b"") -> Result:
        command = [*map(str, words), "--weights", str(small_weights)]
        return CliRunner().invoke(cli.app, command, input=given)

    @pytest.mark.slow
    def test_encode_and_decode(self, small_weights: Path, tmp_path: Path) -> None:
        source = clip(tmp_path / "tone.wav", channels=2, rate=22050)
        packed, back = tmp_path / "tone.melcap", tmp_path / "back.wav"
        assert not self.call(small_weights, "encode", source).exit_code
        assert not self.call(small_weights, "decode", packed, "--out", back).exit_code
        encoded = self.call(small_weights, "encode", "-", "-o", "-", given=source.read_bytes())
        assert encoded.exit_code == 0, encoded.stderr
        assert encoded.stdout_bytes == packed.read_bytes()
        assert "<stdin> -> <stdout>: 0.30 s, 2 ch" in encoded.stderr
        decoded = self.call(small_weights, "decode", "-", given=encoded.stdout_bytes)
        assert decoded.exit_code == 0, decoded.stderr
        assert decoded.stdout_bytes == back.read_bytes()
        both = self.call(
            small_weights, "transcode", "-q", "-", "-o", "-", given=source.read_bytes()
        )
        assert both.exit_code == 0, both.stderr
        assert both.stdout_bytes == back.read_bytes()
        assert both.stderr == ""
        flac = self.call(
            small_weights, "decode", packed, "--out", "-", "--format", "flac", "--sample-rate", 8000
        )
        wave, rate = soundfile.read(io.BytesIO(flac.stdout_bytes))
        assert (wave.shape, rate) == ((-(-6616 * 8000 // 22050), 2), 8000)
        assert flac.stdout_bytes.startswith(b"fLaC")

    def test_stdin_to_a_file(self, tmp_path: Path, small_weights: Path) -> None:
        source, target = clip(tmp_path / "tone.wav"), tmp_path / "new" / "named.melcap"
        done = self.call(
            small_weights, "encode", "-", "-o", target, "--json", given=source.read_bytes()
        )
        told = json.loads(done.stdout)["files"][0]
        assert (told["source"], told["target"]) == ("<stdin>", str(target))
        assert container.read_header(target).samples == 13231

    @pytest.mark.parametrize(
        ("words", "given", "said"),
        [
            (["encode", "-"], b"", "<stdin> is an empty file"),
            (["encode", "-"], b"no audio at all" * 99, "<stdin> is not audio"),
            (["decode", "-"], b"MELCAP", "'<stdin>' cannot be read: the file is truncated"),
            (["encode", "-", "other.wav"], b"", "goes with one file alone"),
            (["encode", "a.wav", "b.wav", "-o", "-"], b"", "goes with one file alone"),
            (["encode", ".", "-o", "-"], b"", "goes with one file alone"),
            (["encode", "-", "-o", "folder/"], b"", "name a file"),
            (["decode", "-", "-o", "back.mp3"], b"", "must end in .wav or .flac"),
        ],
    )
    def test_what_is_refused(
        self, words: list[str], given: bytes, said: str, small_weights: Path
    ) -> None:
        words = [*words, "--weights", str(small_weights)]
        refused(CliRunner().invoke(cli.app, words, input=given), said)

    @pytest.mark.slow
    def test_a_reader_that_goes_away_ends_it_in_silence(
        self, small_weights: Path, tmp_path: Path
    ) -> None:
        source = clip(tmp_path / "tone.wav", seconds=3)  # more than the 64 KiB that a pipe holds
        command = f"{sys.executable} -m melcap transcode -q - -o - --weights {small_weights}"
        done = subprocess.run(
            f"{command} < {source} | head -c 100 > {tmp_path}/head",
            shell=True,
            capture_output=True,
            env=environment(),
        )
        assert done.stderr == b""
        assert (tmp_path / "head").stat().st_size == 100
