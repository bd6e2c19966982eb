"""The stream sampler: determinism, exact resume, ranks, class weights, memory and refusals."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from melcap.errors import InputError, MelcapError
from melcap.training.audio_cache import SAMPLE_RATE, AudioCache
from melcap.training.crops import Batches, CropSampler
from melcap.training.decoding import build_cache
from melcap.training.stream import window
from melcap.training.stream.place import join_ranks
from melcap.training.stream.sampler import StreamOptions, StreamSampler
from tests.training.stream.helpers import encoded, offset_of, shards, wav, write_tar

SMALL = 2e-4
"""200 kB of memory: 20,000 samples in a block, 10,000 from each of two lanes."""


def stream(
    patterns: list[str], seed: int = 0, samples: int = 100, batch: int = 8, **given: Any
) -> StreamSampler:
    chosen = {"memory_gb": SMALL, "reuse": 0.5, "decoders": 2, "processes": False}
    of_stream = {name: given.pop(name) for name in list(given) if name in chosen}
    options = StreamOptions(**{**chosen, **of_stream})
    return StreamSampler(patterns, samples, batch, seed, options=options, **given)


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return shards(tmp_path_factory.mktemp("shards"), 5, clips=12)


def batches(sampler: StreamSampler, count: int) -> list[Tensor]:
    with sampler:
        return [sampler.next() for _ in range(count)]


def equal(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


class TestOrder:
    def test_the_seed_decides(self, noise: list[str]) -> None:
        first = batches(stream(noise, 7), 40)
        assert first[0].shape == (8, 100)
        assert first[0].dtype == torch.float32
        assert equal(first, batches(stream(noise[::-1], 7), 40))
        assert not torch.equal(first[0], batches(stream(noise, 8), 1)[0])

    @settings(max_examples=20)
    @given(before=st.integers(0, 80), seed=st.integers(0, 9), batch=st.integers(1, 9))
    def test_it_resumes_at_any_batch(
        self, noise: list[str], before: int, seed: int, batch: int
    ) -> None:
        """The windows move on every few batches, through several epochs."""
        with stream(noise, seed, batch=batch) as sampler:
            for _ in range(before):
                sampler.next()
            state = json.loads(json.dumps(sampler.state_dict()))
            expected = [sampler.next() for _ in range(30)]
            end = sampler.state_dict()
        with stream(noise, seed + 1, batch=batch) as sampler:
            sampler.load_state_dict(state)
            assert sampler.state_dict() == state
            assert equal(expected, [sampler.next() for _ in range(30)])
            assert sampler.state_dict() == end

    def test_batches_ahead_do_not_matter(self, noise: list[str]) -> None:
        expected = batches(stream(noise), 12)
        with stream(noise) as sampler:
            found = []
            for _ in range(3):  # stopped and resumed
                with Batches(sampler, "cpu") as ahead:
                    found += [ahead.next() for _ in range(4)]
        assert equal(expected, found)

    @pytest.mark.slow
    def test_processes_do_not_matter(self, noise: list[str]) -> None:
        assert equal(batches(stream(noise), 9), batches(stream(noise, processes=True), 9))

    def test_it_resumes_exactly_after_damage_that_was_repaired(self, tmp_path: Path) -> None:
        made = shards(tmp_path, 3)
        broken = Path(made[1])
        whole, at = broken.read_bytes(), offset_of(made[1], 3)
        broken.write_bytes(whole[:at] + b"?" * 512 + whole[at + 512 :])
        with stream(made) as sampler:
            for _ in range(6):
                sampler.next()
            state = sampler.state_dict()
            assert state["ranks"]["0"]["shards_left_out"]
            # what is decoded from here on is another thing, once the shard is repaired
            with_this_window = sampler._crops - state["ranks"]["0"]["crop"]
            expected = [sampler.next() for _ in range(with_this_window // 8)]
            assert expected
        broken.write_bytes(whole)
        with stream(made) as sampler:
            sampler.load_state_dict(state)
            assert equal(expected, [sampler.next() for _ in expected])


class TestRanks:
    def test_rows_are_shared_out(self, noise: list[str]) -> None:
        rows = [len(batches(stream(noise, batch=8, rank=r, world=3), 1)[0]) for r in range(3)]
        assert rows == [2, 3, 3]

    def test_shards_are_shared_out(self, tmp_path: Path) -> None:
        """In the first epoch no shard is read by two ranks, and all are read."""
        made = [
            write_tar(tmp_path / f"{n}.tar", {f"class {n}/{c}.wav": wav(900) for c in range(90)})
            for n in range(6)
        ]
        seen = []
        for rank in range(3):
            sampler = stream(made, rank=rank, world=3)
            batches(sampler, 1)
            seen.append(set(sampler.hours()))
        assert sorted(label for labels in seen for label in labels) == [
            f"class {n}" for n in range(6)
        ]

    def test_each_rank_resumes_from_the_joined_state(self, noise: list[str]) -> None:
        samplers = [stream(noise, rank=rank, world=2) for rank in range(2)]
        for sampler in samplers:
            for _ in range(9):
                sampler.next()
        state = json.loads(json.dumps(join_ranks([one.state_dict() for one in samplers])))
        expected = [[sampler.next() for _ in range(20)] for sampler in samplers]
        assert not equal(expected[0], expected[1])
        for sampler in samplers:
            sampler.close()
        for rank in range(2):
            with stream(noise, rank=rank, world=2) as sampler:
                sampler.load_state_dict(state)
                assert equal(expected[rank], [sampler.next() for _ in range(20)])
        alone = {**state, "ranks": {"0": state["ranks"]["0"]}}
        with pytest.raises(InputError, match="does not have the place of rank 1"):
            stream(noise, rank=1, world=2).load_state_dict(alone)


class TestCrops:
    """The crops are those of `CropSampler` on the same clips."""

    @pytest.fixture
    def both(self, tmp_path: Path) -> Callable[..., list[np.ndarray]]:
        """Return a function that draws crops of ramps, from a cache and from a stream.

        The ratio of the ends of a crop tells where in its clip it is.
        """
        folder = tmp_path
        ramp = np.linspace(0.1, 0.9, 8000)
        members = {"up/long.wav": encoded(ramp), "up/short.wav": encoded(ramp[:2000])}
        members["down/a.wav"] = encoded(-ramp[:3000])
        made = [write_tar(folder / f"{n}.tar", members) for n in range(4)]
        cache = AudioCache(build_cache([Path(made[0])], folder / "cache", workers=1))

        def draw(**given: Any) -> list[np.ndarray]:
            plain = CropSampler(cache, 500, 3000, 0, **given).next().numpy()
            streamed = stream(made, samples=500, batch=500, memory_gb=4e-3, reuse=3, **given)
            return [plain, torch.cat(batches(streamed, 6)).numpy()]

        return draw

    def test_starts_are_as_even(self, both: Callable[..., list[np.ndarray]]) -> None:
        places = []
        for crops in both(class_weights={"down": 0.0}):
            inside = np.abs(crops[(crops[:, 0] != 0) & (crops[:, -1] != 0)]).astype(np.float64)
            # a ramp from a to b, whose step is that of the clip
            first, last = inside[:, 0], inside[:, -1]
            step = (last - first) / 499
            places.append(np.sort((first / step - 0.1 * 7999 / 0.8) / 7500))
            edges = (crops[:, 0] == 0).mean(), (crops[:, -1] == 0).mean()
            # of 10,002 starts in two clips, 250 of each are before it and 250 end after it
            assert edges == pytest.approx((0.05, 0.05), abs=0.015)
        for quantile in (0.1, 0.25, 0.5, 0.75, 0.9):
            expected, found = (np.quantile(some, quantile) for some in places)
            assert found == pytest.approx(expected, abs=0.04)

    def test_levels_polarity_and_bandwidth_are_the_same(
        self, both: Callable[..., list[np.ndarray]]
    ) -> None:
        seen = []
        for crops in both(gain_db=(-12.0, -6.0), narrowed=0.5):
            peaks = 20 * np.log10(np.abs(crops).max(1))
            assert -12.001 <= peaks.min() <= peaks.max() <= -5.999
            highest = np.take_along_axis(crops, np.abs(crops).argmax(1)[:, None], 1)
            exact = np.abs(np.diff(crops[:, 200:300], n=2)).max(1) < 1e-4
            seen.append((peaks.mean(), (highest > 0).mean(), exact.mean()))
        assert seen[0] == pytest.approx((-9, 0.5, seen[1][2]), abs=0.15)
        assert seen[1] == pytest.approx((-9, 0.5, seen[0][2]), abs=0.15)

    def test_classes_are_balanced_and_weighted(self, tmp_path: Path) -> None:
        """Eight ninths of the audio are noise; the rest has no change in it."""
        clips = {"flat": encoded(np.full(100, 0.5)), "noise": wav(800)}
        members = {f"{name}/{n}.wav": clip for name, clip in clips.items() for n in range(9)}
        made = [write_tar(tmp_path / "a.tar", members)]
        for weights, share in (({}, 1 / 2), ({"flat": 3.0}, 3 / 4), ({"noise": 0.0}, 1.0)):
            sampler = stream(made, samples=50, batch=400, class_weights=weights, reuse=5)
            crops = torch.cat(batches(sampler, 5))
            flat = torch.stack([row[row != 0].abs().std(correction=0) < 1e-6 for row in crops])
            assert flat.float().mean() == pytest.approx(share, abs=0.04)

    def test_crops_add_up_to_a_multiple_of_what_is_decoded(self, noise: list[str]) -> None:
        for reuse in (0.5, 2.0):
            sampler = stream(noise, reuse=reuse)
            drawn = 0
            with sampler:
                while sampler.state_dict()["ranks"]["0"]["turn"] < 12:
                    drawn += sampler.next().numel()
            decoded = sum(sampler.hours().values()) * 3600 * SAMPLE_RATE
            # The last three blocks are not used up, and the first had the window to themselves.
            assert drawn / decoded == pytest.approx(reuse, rel=0.25)

    def test_a_crop_never_crosses_pieces(self, tmp_path: Path) -> None:
        """Silence is at the ends of a long clip, and not where it is cut."""
        made = [write_tar(tmp_path / "a.tar", {"x/a.wav": encoded(np.full(200_000, 0.5))})]
        sampler = stream(made, decoders=1, batch=400, reuse=3)
        crops = torch.cat(batches(sampler, 5))
        assert (crops == 0).any(1).float().mean() < 0.01

    def test_examples_are_of_the_first_shard_and_the_same_in_every_run(
        self, noise: list[str]
    ) -> None:
        first = stream(noise).examples(150, 3)
        assert {label: crops.shape for label, crops in first.items()} == {
            "music": (3, 150),
            "speech": (3, 150),
        }
        again = stream(noise, seed=5).examples(150, 3)
        assert all(torch.equal(first[label], again[label]) for label in first)


class TestMemory:
    @pytest.mark.parametrize("length", [300, 30_000])
    def test_it_is_bounded(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, length: int
    ) -> None:
        """All blocks of the window and the next one have room, however long clips are."""
        clips = {f"x/{n}.wav": wav(length, n) for n in range(max(2, 60_000 // length))}
        made = [write_tar(tmp_path / f"{n}.tar", clips) for n in range(3)]
        sizes = []
        read = window.BlockReader.read

        def measured(self: window.BlockReader) -> window.Block:
            block = read(self)
            sizes.append(sum(piece.audio.nbytes for piece in block.pieces))
            return block

        monkeypatch.setattr(window.BlockReader, "read", measured)
        batches(stream(made), 150)
        assert len(sizes) > window.BLOCKS + 2
        most = max(sum(sizes[n : n + window.BLOCKS + 1]) for n in range(len(sizes)))
        assert 0.4 * SMALL * 1e9 < most <= SMALL * 1e9

    def test_too_little_is_refused(self, noise: list[str]) -> None:
        with pytest.raises(InputError, match=r"--stream-memory must be above 0.08"):
            stream(noise, samples=1_000_000)
        needed = StreamOptions(memory_gb=0.081, decoders=2)
        assert StreamSampler(noise, 1_000_000, 1, 0, options=needed).key


class TestFailures:
    def test_a_clip_that_is_no_audio_is_named_and_counted(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        members = {f"x/{n}.wav": wav(800, n) for n in range(20)} | {"x/bad.wav": b"nothing"}
        shard = write_tar(tmp_path / "a.tar", members)
        sampler = stream([shard])
        with caplog.at_level(logging.WARNING):
            batches(sampler, 40)
        assert f"x/bad.wav of {shard} is left out: " in caplog.text
        epochs = caplog.text.count("x/bad.wav of")
        assert f"{epochs} clips and the rest of 0 shards were left out" in sampler.summary()
        assert list(sampler.hours()) == ["x"]

    def test_only_the_first_hundred_are_named(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        members = {"x/0.wav": wav(9000)} | {f"x/bad {n}.wav": b"nothing" for n in range(150)}
        with caplog.at_level(logging.WARNING):
            batches(stream([write_tar(tmp_path / "a.tar", members)]), 20)
        assert caplog.text.count("is left out") == 100
        assert "further clips that cannot be decoded are counted, not named" in caplog.text

    def test_if_no_clip_can_be_decoded_it_ends(self, tmp_path: Path) -> None:
        members = {f"x/{n}.wav": b"nothing" for n in range(40)}
        sampler = stream([write_tar(tmp_path / "a.tar", members)])
        with sampler, pytest.raises(MelcapError, match="none of the first 32 clips can be decoded"):
            sampler.next()

    def test_if_no_shard_can_be_read_it_ends(self, tmp_path: Path) -> None:
        for name in "abcd":
            (tmp_path / f"{name}.tar").write_bytes(b"not a tar, " * 100)
        with stream([f"{tmp_path}/{{a,b,c,d}}.tar"]) as sampler:
            with pytest.raises(MelcapError, match="3 shards in a row cannot be read"):
                sampler.next()

    def test_stop_ends_a_next_that_waits(self, tmp_path: Path) -> None:
        with stream(["pipe:sleep 3"], decoders=1) as sampler:
            ahead = Batches(sampler, "cpu")
            ahead.close()
            with pytest.raises(MelcapError, match="stopped"):
                ahead._ready[0].result()


class TestRefusals:
    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ({"samples": 0}, "at least 1 sample"),
            ({"batch": 1, "world": 2}, "no crop for each of 2 processes"),
            ({"world": 6}, "5 shards are too few for 6 processes"),
            ({"class_weights": {"music": -1.0}}, "must be >= 0"),
            ({"gain_db": (0.0, -6.0)}, "low <= high"),
            ({"memory_gb": 0.0}, "--stream-memory must be above 0"),
            ({"reuse": 0.0}, "--reuse must be above 0"),
            ({"decoders": 0}, "--decoders must be at least 1"),
        ],
    )
    def test_settings(self, noise: list[str], given: dict[str, Any], message: str) -> None:
        with pytest.raises(InputError, match=message):
            stream(noise, **given)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"decoders": 1}, "with 2 decoders, see --decoders, not 1"),
            ({"memory_gb": 3e-4}, "200000 bytes of memory, see --stream-memory, not 300000"),
            ({"world": 2}, "with 1 processes that train, not 2"),
        ],
    )
    def test_a_resume_with_others(
        self, noise: list[str], change: dict[str, Any], message: str
    ) -> None:
        state = stream(noise).state_dict()
        with pytest.raises(InputError, match=message):
            stream(noise, **change).load_state_dict(state)

    def test_a_resume_with_other_shards(self, noise: list[str], tmp_path: Path) -> None:
        state = stream(noise).state_dict()
        with pytest.raises(InputError, match="it had 5 and now there are 4"):
            stream(noise[:4]).load_state_dict(state)
        other = write_tar(tmp_path / Path(noise[0]).name, {"x/a.wav": wav(5)})
        with pytest.raises(InputError, match="or files of other names or sizes"):
            stream([other, *noise[1:]]).load_state_dict(state)

    def test_states_of_other_kinds(self, noise: list[str], tmp_path: Path) -> None:
        (tmp_path / "x").mkdir()
        (tmp_path / "x" / "a.wav").write_bytes(wav(500))
        cache = AudioCache(build_cache([tmp_path / "x"], tmp_path / "cache", workers=1))
        plain, streamed = CropSampler(cache, 100, 2, 0), stream(noise)
        with pytest.raises(InputError, match="began without --stream resumes without it"):
            streamed.load_state_dict(plain.state_dict())
        with pytest.raises(InputError, match="began with --stream resumes with --stream"):
            plain.load_state_dict(streamed.state_dict())
        state = json.loads(json.dumps(streamed.state_dict()))
        for damage in ({"stream": {}}, {"ranks": {"0": {}}}, {"ranks": {"0": {"starts": 1}}}):
            with pytest.raises(InputError, match="not the state of a stream"):
                streamed.load_state_dict({**state, **damage})
