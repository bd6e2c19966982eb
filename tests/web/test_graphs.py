"""Compare the graphs of the weights that ship with the codec, in ONNX Runtime without a browser."""

from __future__ import annotations

import gzip
import runpy
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from melcap.codec import Codec
from melcap.evaluation.measures.signals import Wave
from melcap.onnx.export import facts
from tests.helpers import count_ties
from tests.web.conftest import ROOT, WEB

pytestmark = pytest.mark.web


@pytest.fixture(scope="module")
def example() -> SimpleNamespace:
    """Return examples/onnx_codec.py."""
    return SimpleNamespace(**runpy.run_path(str(ROOT / "examples" / "onnx_codec.py")))


@pytest.fixture(scope="module")
def graphs(example: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return both graphs, which `make web` exported."""
    folder = tmp_path_factory.mktemp("graphs")
    loaded = {}
    for name in ("encoder", "decoder"):
        path = folder / f"{name}.ort"
        packed = WEB / "models" / f"{name}.ort.gz"
        path.write_bytes(gzip.decompress(packed.read_bytes()))
        loaded[name] = example.Graph(path)
    return loaded


def test_real_clips(
    lite: Codec, speech: Wave, music: Wave, graphs: dict[str, Any], example: SimpleNamespace
) -> None:
    """Tokens are the codec's but for ties, and samples within 1e-3."""
    longest = min(len(speech), len(music))
    batch = np.stack((speech[:longest], music[:longest]))
    codes = lite.encode(batch, 44100)
    tokens = example.encode(graphs["encoder"], batch)
    for row, clip in enumerate(torch.from_numpy(batch)):
        assert count_ties(lite, clip, codes.tokens[row], torch.from_numpy(tokens[row])) <= 3
    expected = lite.decode(codes).numpy()
    found = example.decode(graphs["decoder"], codes.tokens.numpy())[:, : batch.shape[1]]
    assert np.abs(found - expected).max() <= 1e-3


def test_the_facts(lite: Codec, graphs: dict[str, Any]) -> None:
    assert graphs["encoder"].facts == graphs["decoder"].facts == facts(lite)
