"""Lanes: every shard once an epoch, pieces that make up their clips, exact resume, and crashes."""

from __future__ import annotations

import multiprocessing
from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from melcap.errors import MelcapError
from melcap.training.stream import lane as lanes
from melcap.training.stream import process
from melcap.training.stream.lane import Event, LeftOut, Opened, Piece, Plan, Position, events
from melcap.training.stream.process import LaneReader
from tests.training.stream.helpers import dying, encoded, offset_of, shards, wav, write_tar

START = Position(0, 0, 0)


def plan(*names: str, piece: int = 1000, unwanted: tuple[str, ...] = ()) -> Plan:
    return Plan(names, 0, 0, 1, piece, frozenset(unwanted))


def some(count: int, plan: Plan, at: Position = START, jumps: lanes.Jumps | None = None) -> list:
    """Return the first events of a lane, but for `Opened`."""
    found = (event for event in events(plan, at, jumps or {}) if not isinstance(event, Opened))
    return list(islice(found, count))


def same(one: Event, other: Event) -> bool:
    if isinstance(one, Piece) and isinstance(other, Piece):
        return one[:2] + one[3:] == other[:2] + other[3:] and np.array_equal(one[2], other[2])
    return one == other


@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 99), st.integers(0, 3))
def test_each_epoch_has_each_shard_once(count: int, lanes: int, seed: int, epoch: int) -> None:
    names = tuple(map(str, range(count)))
    sequence = {
        item * lanes + number: Plan(names, seed, number, lanes, 1).shard(item)
        for number in range(lanes)
        for item in range((epoch + 1) * count // lanes + 1)
    }
    read = [sequence[place] for place in range(epoch * count, (epoch + 1) * count)]
    assert sorted(read) == sorted(names)


def test_epochs_have_orders_of_their_own() -> None:
    made = plan(*map(str, range(20)))
    orders = {tuple(made.shard(item) for item in range(20 * e, 20 * e + 20)) for e in range(5)}
    assert len(orders) == 5


@given(length=st.integers(1, 6000), piece=st.integers(50, 2000))
def test_pieces_make_up_their_clip(
    tmp_path_factory: pytest.TempPathFactory, length: int, piece: int
) -> None:
    wave = np.arange(length) / 32767
    shard = write_tar(tmp_path_factory.mktemp("a") / "a.tar", {"x/a.wav": encoded(wave)})
    found = []
    for event in some(200, plan(shard, piece=piece)):
        found.append(event)
        if event.ends:
            break
    assert np.array_equal(np.concatenate([event.audio for event in found]), np.arange(length))
    assert [event.begins for event in found] == [True] + [False] * (len(found) - 1)
    assert [event.ends for event in found] == [False] * (len(found) - 1) + [True]
    assert all(len(event.audio) == piece for event in found[:-1])
    assert len(found[-1].audio) < 2 * piece
    assert len(found) == 1 or len(found[-1].audio) >= piece


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Return shards with long clips, a clip that is no audio, and one that is cut."""
    folder = tmp_path_factory.mktemp("bad")
    made = [
        write_tar(
            folder / f"{name}.tar",
            {
                "music/long.wav": wav(3500, 1),
                f"music/{name}.wav": b"no audio at all",
                "speech/b.wav": wav(400, 2),
                "speech/c.wav": wav(500, 3),
            },
        )
        for name in "pqr"
    ]
    cut = Path(made[1])
    cut.write_bytes(cut.read_bytes()[: offset_of(made[1], 3) + 700])
    return made


@given(data=st.data())
def test_a_lane_goes_on_from_any_position(bad: list[str], data: st.DataObject) -> None:
    expected = list(islice(events(plan(*bad), START, {}), 40))
    first = data.draw(st.integers(0, len(expected) - 1))
    jumps = {event.at: event.after for event in expected if isinstance(event, LeftOut)}
    kept = [event for event in expected[first + 1 :] if isinstance(event, Piece)]
    assert all(map(same, kept, some(len(kept), plan(*bad), expected[first].after, jumps)))


def test_bad_clips_and_cuts_are_named(bad: list[str]) -> None:
    left_out = [event for event in some(18, plan(*bad)) if isinstance(event, LeftOut)]
    reasons = {event.reason for event in left_out}
    assert any(r.startswith(f"music/p.wav of {bad[0]} is left out: music/p.wav ") for r in reasons)
    cut = next(event for event in left_out if event.is_shard)
    said = "left out of this epoch: the tar ends 856 bytes too early"
    assert cut.reason == f"{bad[1]} from clip 3 on is {said}"
    assert cut.after == Position(cut.at.item + 1, 0, 0)


def test_what_was_left_out_is_left_out_again_though_it_is_whole_by_now(tmp_path: Path) -> None:
    (shard,) = shards(tmp_path, 1)
    whole = Path(shard).read_bytes()
    Path(shard).write_bytes(whole[: offset_of(shard, 4)])
    expected = some(12, plan(shard))
    jumps = {event.at: event.after for event in expected if isinstance(event, LeftOut)}
    assert jumps
    Path(shard).write_bytes(whole)
    pieces = [event for event in expected if isinstance(event, Piece)]
    per_epoch = next(iter(jumps)).clip
    assert all(map(same, pieces[:per_epoch], some(per_epoch, plan(shard), START, jumps)))
    after = some(per_epoch + 1, plan(shard), START, jumps)[per_epoch]
    assert after.after == Position(1, 1, 0)
    assert some(6, plan(shard))[5].after == Position(0, 6, 0)


def test_classes_without_weight_are_not_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = plan(*shards(tmp_path, 2), unwanted=("music",))
    decoded = []
    before = lanes.decoded
    monkeypatch.setattr(lanes, "decoded", lambda file: decoded.append(file.name) or before(file))
    assert {event.label for event in some(12, made)} == {"speech"}
    assert all(name.startswith("speech/") for name in decoded)
    with pytest.raises(MelcapError, match="class whose weight is above 0"):
        some(1, plan(*shards(tmp_path, 2), unwanted=("music", "speech")))


def test_a_command_is_tried_again_before_its_shard_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "ATTEMPTS_AFTER", (0.0, 0.0))
    (shard,) = shards(tmp_path, 1)
    expected = some(6, plan(shard))
    count = tmp_path / "count"
    # The first two attempts end early, the third is whole.
    sizes = f"$n == 1 ? {offset_of(shard, 2)} : $n == 2 ? {offset_of(shard, 5) + 600} : 99999"
    command = f"pipe:echo >>{count}; n=$(wc -l <{count}); head -c $(( {sizes} )) {shard}"
    found = some(6, plan(command))
    assert all(map(same, expected, found))
    assert len(count.read_text()) == 3
    with pytest.raises(MelcapError, match=r"3 shards in a row cannot be read.*: gone"):
        some(9, plan("pipe:echo gone >&2; false"))


@pytest.mark.slow
class TestProcesses:
    @pytest.fixture(autouse=True)
    def dying(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MELCAP_TEST_FLAG", str(tmp_path / "flag"))
        monkeypatch.setattr(process, "_serve_alone", dying)

    @staticmethod
    def read(plan: Plan, count: int) -> list[Piece | LeftOut]:
        reader = LaneReader(plan, START)
        found: list[Piece | LeftOut] = []
        while len(found) < count:
            if (event := reader.receive()) is not None:
                found.append(event)
        reader.close()
        assert not multiprocessing.active_children()
        return found

    def test_a_clip_at_which_one_process_died_is_read_again(self, tmp_path: Path) -> None:
        members = {"x/a.wav": wav(100, 1), "x/deadly once.wav": wav(200, 2), "x/c.wav": wav(300)}
        made = plan(write_tar(tmp_path / "a.tar", members))
        assert all(map(same, some(3, made), self.read(made, 3)))

    def test_a_clip_at_which_two_died_is_left_out(self, tmp_path: Path) -> None:
        members = {"x/a.wav": wav(100, 1), "x/deadly.wav": wav(200, 2), "x/c.wav": wav(300)}
        shard = write_tar(tmp_path / "a.tar", members)
        pieces, found = some(3, plan(shard)), self.read(plan(shard), 3)
        assert same(pieces[0], found[0])
        assert same(pieces[2], found[2])
        reason = f"x/deadly.wav of {shard} is left out: two processes that read it died (signal 9)"
        assert found[1] == LeftOut(Position(0, 1, 0), Position(0, 2, 0), reason)

    def test_a_shard_at_which_two_died_is_left_out(self, tmp_path: Path) -> None:
        shard = write_tar(tmp_path / "a.tar", {"x/a.wav": wav(100, 1)})
        made = plan(shard, "pipe:kill -9 $PPID; sleep 1")
        kinds = Counter(
            event.is_shard if isinstance(event, LeftOut) else "piece"
            for event in self.read(made, 3)
        )
        assert kinds[True] in (1, 2)
        assert kinds[True] + kinds["piece"] == 3
