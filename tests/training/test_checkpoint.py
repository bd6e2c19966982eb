"""Checkpoints: nothing is lost or half-written, and nothing damaged is read without an error.

The state of every kind comes back to the bit. Files are of limited size. Whatever interrupts a
save, the checkpoint before is whole. Missing files are reported, damaged ones refused.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from melcap.errors import InputError, MelcapError
from melcap.training import saving
from melcap.training.audio_cache import AudioCache
from melcap.training.checkpoint import INDEX, Checkpoint
from melcap.training.nested import join, split
from tests.training.helpers import cache_of_clips, files_of, flat, stage_2, states_of, train_to


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> AudioCache:
    return cache_of_clips(tmp_path_factory.mktemp("data"))


def draw_tensor(seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    kinds = (torch.float32, torch.bfloat16, torch.int64, torch.uint8)
    drawn = torch.randn(seed % 4, seed % 3 + 1, generator=generator)
    return drawn.to(kinds[seed % len(kinds)]).mT  # not contiguous


plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
states = st.recursive(
    plain | st.integers(0, 99).map(draw_tensor),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text("a1./", max_size=2) | st.integers(0, 3), inner, max_size=3)
    ),
)


def same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


@pytest.mark.slow
@given(states)
def test_a_nested_state_comes_back_through_json(state: Any) -> None:
    described, tensors = split(state)
    assert all(tensor.is_contiguous() for tensor in tensors.values())
    assert same(join(json.loads(json.dumps(described)), tensors), state)


def test_keys_that_read_the_same_are_kept_apart() -> None:
    state = {
        1: torch.zeros(2),
        "1": torch.ones(2),
        "a": {"b": torch.zeros(1)},
        "a/b": torch.ones(1),
    }
    assert same(join(*split(state)), state)


def test_what_no_checkpoint_can_hold_is_named() -> None:
    with pytest.raises(TypeError, match="a/1 is a set"):
        split({"a": [1, {2}]})


def test_tensors_that_share_memory_are_kept_apart() -> None:
    shared = torch.zeros(3)
    _, tensors = split([shared, shared[:2]])
    addresses = {tensor.data_ptr() for tensor in tensors.values()}
    assert len(addresses) == 2


@pytest.fixture(scope="module")
def trained(cache: AudioCache, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the checkpoint of a vocoder after one step."""
    path = tmp_path_factory.mktemp("trained") / "vocoder"
    train_to(1, stage_2(), cache, path)
    return path


@pytest.fixture
def path(trained: Path, tmp_path: Path) -> Path:
    """Return a copy of that checkpoint."""
    return Path(shutil.copytree(trained, tmp_path / "vocoder"))


@pytest.mark.slow
@pytest.mark.usefixtures("few_discriminators")
def test_files_are_of_limited_size(
    cache: AudioCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"discriminators": 2, "warmup": 1}
    train_to(2, stage_2(**settings), cache, tmp_path / "whole")
    monkeypatch.setattr(saving, "FILE_BYTES", 4096)
    train_to(2, stage_2(**settings), cache, tmp_path / "parts")
    index = Checkpoint(tmp_path / "parts").index
    assert all(len(files) > 1 for part, files in index["files"].items() if part != "random")
    largest = max(tensor.nbytes for tensor in flat(states_of(tmp_path / "parts")).values())
    header = 20_000
    for name, data in files_of(tmp_path / "parts").items():
        if name != INDEX:
            assert len(data) <= max(4096, largest) + header
    whole, parts = (flat(states_of(tmp_path / name)) for name in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    assert {name.split(".")[1] for name in whole} == {"modules", "averages", "optimisers"}


@pytest.mark.slow
@pytest.mark.parametrize("writes", range(5))
def test_a_save_that_is_interrupted_leaves_the_checkpoint_before(
    cache: AudioCache, path: Path, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    """A save is killed before any file, between any two, and before the index."""
    before = flat(states_of(path))
    done = 0
    replacing = saving.replacing

    def killed(target: Path) -> Any:
        nonlocal done
        if done == writes:
            raise KeyboardInterrupt
        done += 1
        return replacing(target)

    # A kill leaves no time to clean up.
    monkeypatch.setattr(saving, "_remove_unlisted", lambda path: None)
    monkeypatch.setattr(saving, "replacing", killed)
    with pytest.raises(KeyboardInterrupt):
        train_to(2, stage_2(), cache, path)
    monkeypatch.undo()
    assert Checkpoint(path).step == 1
    after = flat(states_of(path))
    assert all(torch.equal(after[name], value) for name, value in before.items())
    train_to(2, stage_2(), cache, path)
    listed = {file["name"] for part in Checkpoint(path).index["files"].values() for file in part}
    assert set(files_of(path)) == {INDEX} | listed, "files of other checkpoints are left"


def file_of(path: Path, part: str) -> Path:
    return path / Checkpoint(path).index["files"][part][0]["name"]


@pytest.mark.slow
@pytest.mark.usefixtures("few_discriminators")
def test_parts_that_are_missing_begin_anew(
    cache: AudioCache, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "vocoder"
    train_to(2, stage_2(discriminators=2, warmup=1), cache, path)
    for part in ("averages", "optimisers", "discriminators", "discriminator_optimisers"):
        file_of(path, part).unlink()
    found = Checkpoint(path)
    assert found.missing == [
        "averages",
        "optimisers",
        "discriminators",
        "discriminator_optimisers",
    ]
    assert found.states("averages") == found.states("optimisers") == {}
    assert found.exported()["vocoder"].keys() == found.modules["vocoder"].keys()
    capsys.readouterr()
    recipe = stage_2(discriminators=2, warmup=1)
    train_to(2, recipe, cache, path)
    said = capsys.readouterr().err
    assert "vocoder has no file for its averages: they begin anew" in said
    assert "vocoder has no file for its discriminators: they begin anew" in said
    for key, value in recipe.vocoder.state_dict().items():
        assert torch.equal(value, found.modules["vocoder"][key])


@pytest.mark.slow
def test_weights_that_are_missing_are_refused(cache: AudioCache, path: Path) -> None:
    file_of(path, "weights").unlink()
    with pytest.raises(InputError, match=r"weights-1-\w+\.safetensors: cannot read"):
        train_to(2, stage_2(), cache, path)


@pytest.mark.slow
@pytest.mark.parametrize("part", ["weights", "averages", "optimisers", "random"])
def test_a_damaged_file_is_refused(cache: AudioCache, path: Path, part: str) -> None:
    file = file_of(path, part)
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(InputError, match=rf"{part}-1-\w+\.safetensors: damaged"):
        train_to(2, stage_2(), cache, path)


def test_what_is_not_finite_is_not_saved(cache: AudioCache, tmp_path: Path) -> None:
    recipe = stage_2()
    with torch.no_grad():
        next(recipe.vocoder.parameters()).view(-1)[0] = float("nan")
    with pytest.raises(MelcapError, match=r"vocoder\.\S+ is not finite at step 7"):
        saving.save(tmp_path / "vocoder", recipe, {}, saving.TrainingProgress(7, 0.0, {}, []))
    assert not files_of(tmp_path)
