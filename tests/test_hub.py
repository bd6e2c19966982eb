"""Folders in the layout of the Hub are written and read, and refused where they are wrong."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from melcap.audio_codec import AudioCodec
from melcap.base_codec import BaseCodec
from melcap.codec import Codec
from melcap.errors import MelcapError, WeightsError
from tests.helpers import SMALL, draw_weights, noise
from tests.model.base.published import TINY, codec_of, with_windows


@pytest.fixture(scope="module")
def base() -> BaseCodec:
    return with_windows(codec_of(TINY[0]), 12)


@pytest.fixture
def base_folder(base: BaseCodec, tmp_path: Path) -> Path:
    base.save_pretrained(tmp_path / "base")
    return tmp_path / "base"


@pytest.fixture
def folder(codec: Codec, tmp_path: Path) -> Path:
    codec.save_pretrained(tmp_path / "codec", license="mit", card="## Data\n\nNoise.")
    return tmp_path / "codec"


def test_there_and_back(codec: Codec, folder: Path, tmp_path: Path) -> None:
    assert sorted(os.listdir(folder)) == ["README.md", "config.json", "model.safetensors"]
    for name in (folder, str(folder)):
        again = Codec.from_pretrained(name)
        assert (again.config, again.tokenizer_id) == (codec.config, codec.tokenizer_id)
        codes = codec.encode(noise(5000), 44100)
        assert torch.equal(again.decode(codes), codec.decode(codes))
    again.save_pretrained(tmp_path / "again")
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()
    assert Codec.from_pretrained(folder, quality="fast").quality == "fast"


def test_a_base_codec_there_and_back(base: BaseCodec, base_folder: Path, tmp_path: Path) -> None:
    """Nothing is rounded, so tokens and samples are the same, over several windows."""
    again = BaseCodec.from_pretrained(base_folder)
    assert (again.config, again.tokenizer_id) == (base.config, base.tokenizer_id)
    wave = noise(2, 80_000)
    codes = base.encode(wave, 44100)
    assert torch.equal(again.encode(wave, 44100).tokens, codes.tokens)
    assert torch.equal(again.decode(codes), base.decode(codes))
    described = json.loads((base_folder / "config.json").read_text())
    assert (described["model"], described["tokenizer_id"]) == (again.model, base.tokenizer_id)
    again.save_pretrained(tmp_path / "again")
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (base_folder / name).read_bytes()


def test_folders_of_the_other_architecture_are_refused(folder: Path, base_folder: Path) -> None:
    with pytest.raises(WeightsError, match=r"with melcap\.base_codec\.BaseCodec\.from_pretrained$"):
        Codec.from_pretrained(base_folder)
    with pytest.raises(WeightsError, match=r"with melcap\.Codec\.from_pretrained$"):
        BaseCodec.from_pretrained(folder)


def test_a_codec_that_is_in_no_file_yet(tmp_path: Path) -> None:
    made = draw_weights(Codec(SMALL), seed=4)
    made.save_pretrained(tmp_path)
    own = Codec.from_pretrained(tmp_path)
    described = json.loads((tmp_path / "config.json").read_text())
    assert (described["model"], described["tokenizer_id"]) == (own.model, own.tokenizer_id)
    assert own.model.startswith("small-")


def test_the_card_has_front_matter(folder: Path, codec: Codec) -> None:
    yaml = pytest.importorskip("yaml")
    _, front, body = (folder / "README.md").read_text().split("---\n", 2)
    data = yaml.safe_load(front)
    assert (data["library_name"], data["license"]) == ("melcap", "mit")
    assert "audio-codec" in data["tags"]
    for words in ("# small", codec.tokenizer_id, "from_pretrained", "## Data\n\nNoise.\n"):
        assert words in body
    (folder / "README.md").write_text("mine")
    codec.save_pretrained(folder)
    assert (folder / "README.md").read_text() == "mine"


def test_the_card_of_a_base_codec(base: BaseCodec, base_folder: Path) -> None:
    card = (base_folder / "README.md").read_text()
    for words in ("the published MelCap architecture", base.tokenizer_id, "one codebook of 512"):
        assert words in card
    assert "license" not in card
    (base_folder / "README.md").write_text("mine")
    base.save_pretrained(base_folder, license="mit")
    assert (base_folder / "README.md").read_text() == "mine"


def test_the_code_on_the_card_runs(
    codec: Codec, base: BaseCodec, folder: Path, base_folder: Path
) -> None:
    made: list[tuple[AudioCodec, Path]] = [(codec, folder), (base, base_folder)]
    for own, path in made:
        (code,) = re.findall("```python\n(.*?)```", (path / "README.md").read_text(), re.DOTALL)
        names = {"wave": noise(5000), "sample_rate": 44100}
        expected = own.decode(own.encode(names["wave"], 44100))
        exec(code.replace("PATH_OR_NAME", str(path)), names)
        assert torch.equal(names["wave"], expected)


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("config.json", None, "not the folder of a codec: config.json .* No such file"),
        ("config.json", "{", "not the configuration of a codec"),
        ("config.json", "[]", "not the configuration of a codec"),
        ("config.json", '{"codec": {}}', "is not the configuration of model.safetensors"),
        ("model.safetensors", None, "cannot read the weights: No such file"),
        ("model.safetensors", "weights", "not a melcap weights file"),
    ],
)
def test_a_folder_of_something_else(
    folder: Path, file: str, content: str | None, words: str
) -> None:
    if content is None:
        (folder / file).unlink()
    else:
        (folder / file).write_text(content)
    with pytest.raises(WeightsError, match=words) as caught:
        Codec.from_pretrained(folder)
    assert "\n" not in str(caught.value)


def test_a_folder_that_cannot_be_written(codec: Codec, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    with pytest.raises(WeightsError, match="file/codec: cannot write the codec: Not a directory"):
        codec.save_pretrained(tmp_path / "file" / "codec")
    assert (tmp_path / "file").read_text() == "precious"


@pytest.mark.parametrize(
    "name", ["nowhere", "./nowhere", "/no/where", "a/b/c", "user/", "../no-such-folder"]
)
def test_wrong_names_are_refused(name: str) -> None:
    with pytest.raises(
        WeightsError, match=f"{name}: there is no such folder, and it is not a name"
    ):
        Codec.from_pretrained(name)


def test_a_hub_name(folder: Path, codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def snapshot_download(name: str, **given: Any) -> str:
        asked.append((name, given["revision"], sorted(given["allow_patterns"])))
        return str(folder)

    monkeypatch.setitem(
        sys.modules, "huggingface_hub", SimpleNamespace(snapshot_download=snapshot_download)
    )
    again = Codec.from_pretrained("user/model", revision="v1")
    assert again.tokenizer_id == codec.tokenizer_id
    assert asked == [("user/model", "v1", ["config.json", "model.safetensors"])]
    with pytest.raises(WeightsError, match=r"a local folder has no revisions: .*'v1'"):
        Codec.from_pretrained(folder, revision="v1")


def test_a_hub_name_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MelcapError, match="pip install huggingface_hub, or give the path"):
        Codec.from_pretrained("user/model")


@pytest.mark.slow
def test_a_failed_download_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(WeightsError, match="user/model: cannot be downloaded: ") as caught:
        Codec.from_pretrained("user/model")
    assert "\n" not in str(caught.value)
