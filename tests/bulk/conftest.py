"""Fixtures that tests of collections share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from melcap.bulk.reading import pool
from tests.forks import FORKS


@pytest.fixture(scope="module")
def forked_readers() -> Iterator[None]:
    """Fork reading processes, which start in no time, for a module that does not test them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pool, "SPAWN", FORKS)
        yield
