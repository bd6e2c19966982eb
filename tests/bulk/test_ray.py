"""A cluster of two workers makes the same rows as one machine."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Generator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from melcap import Codec
from melcap.bulk import ray_engine
from melcap.bulk.encoding.encode import EncodedWindow
from melcap.bulk.manifests.entries import Entry
from melcap.bulk.reading.messages import Bad, End
from melcap.bulk.tokenize import ERRORS, Options, tokenize
from melcap.errors import MelcapError
from tests.bulk.helpers import corpus, ids_and_tokens, saved_base

ray = pytest.importorskip("ray")
pytest.importorskip("ray.data")
pytest.importorskip("pyarrow")

pytestmark = pytest.mark.slow  # a cluster takes ten seconds to start

EXAMPLE = Path(__file__).parents[2] / "examples" / "tokenize_ray.py"
LOCAL = Options(readers=1, encoders=1, shard_clips=4)


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Start two nodes of one core each, as if they were two machines."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        cluster = Cluster()
        for _ in range(2):
            cluster.add_node(num_cpus=1, object_store_memory=200 << 20)
        ray.init(address=cluster.address, log_to_driver=False)
        yield
        ray.shutdown()
        cluster.shutdown()


def test_the_rows_are_those_of_one_machine(cluster: None, codec: Codec, tmp_path: Path) -> None:
    corpus(tmp_path / "clips", [0.1, 0.5, 0.2, 3.0, 0.4, 0.1, 0.3])
    (tmp_path / "clips" / "bad.wav").write_bytes(b"no audio")
    local, cloud = tmp_path / "local", tmp_path / "cloud"
    options = replace(LOCAL, mono=True)
    tokenize([str(tmp_path / "clips")], local, codec, options)
    url = f"file://{tmp_path / 'clips'}"
    end = tokenize([url], cloud, codec, replace(options, engine="ray"))
    assert (end.clips, end.done, end.bad) == (8, 7, 1)
    assert ids_and_tokens(cloud) == ids_and_tokens(local)
    assert "bad.wav" in (cloud / ERRORS).read_text()
    assert sorted(path.name for path in cloud.glob("*.parquet")) == sorted(
        path.name for path in local.glob("*.parquet")
    )


def test_the_rows_of_a_published_codec(cluster: None, tmp_path: Path) -> None:
    base = saved_base(tmp_path / "base.safetensors", 12)
    corpus(tmp_path / "clips", [0.3, 1.2, 0.2, 0.3])
    tokenize([str(tmp_path / "clips")], tmp_path / "local", base, LOCAL)
    tokenize([str(tmp_path / "clips")], tmp_path / "cloud", base, replace(LOCAL, engine="ray"))
    assert ids_and_tokens(tmp_path / "cloud") == ids_and_tokens(tmp_path / "local")


class GivesUp:
    """Workers that give up on all clips but the first `gives`."""

    gives = 0

    def __init__(self, *_: object) -> None:
        pass

    def encode(self, entries: Iterator[tuple[int, Entry]]) -> Generator[EncodedWindow | End | Bad]:
        for number, _ in [*entries][: self.gives]:
            yield Bad(number, "read by Ray")


def test_what_ray_gives_up_on_is_done_here(
    codec: Codec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus(tmp_path / "clips", [0.1, 0.2, 0.1])
    monkeypatch.setattr(ray_engine, "RayEncoder", GivesUp)
    options = replace(LOCAL, engine="ray")
    with pytest.raises(MelcapError, match="Ray gave no result for any clip"):
        tokenize([str(tmp_path / "clips")], tmp_path / "out", codec, options)
    monkeypatch.setattr(GivesUp, "gives", 1)
    end = tokenize([str(tmp_path / "clips")], tmp_path / "out", codec, options)
    assert (end.done, end.bad) == (2, 1)


def test_a_cluster_without_a_gpu_is_refused(cluster: None, codec: Codec, tmp_path: Path) -> None:
    corpus(tmp_path / "clips", [0.1])
    options = replace(LOCAL, engine="ray", device="cuda")
    with pytest.raises(MelcapError, match=r"no \{'GPU': 1\} for an actor"):
        tokenize([str(tmp_path / "clips")], tmp_path / "out", codec, options)


def test_the_example(
    cluster: None,
    small_weights: Path,
    codec: Codec,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It makes the rows of one machine, with all channels of a clip."""
    corpus(tmp_path / "clips", [0.1, 0.2])
    words = [str(tmp_path / "clips"), str(tmp_path / "out"), "--weights", str(small_weights)]
    monkeypatch.setattr(sys, "argv", ["tokenize_ray.py", *words])
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    tokenize([str(tmp_path / "clips")], tmp_path / "local", codec, LOCAL)
    assert ids_and_tokens(tmp_path / "out") == ids_and_tokens(tmp_path / "local")
