"""Fixtures that tests of training share."""

from __future__ import annotations

from functools import partial

import pytest

from melcap.training import stage2


@pytest.fixture
def few_discriminators(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use one discriminator of either kind, which is enough where their number does not matter."""
    for name, settings in (
        ("MultiPeriodDiscriminator", {"periods": (2,)}),
        ("MultiResolutionDiscriminator", {"sizes": (512,), "bands": (0.0, 1.0)}),
    ):
        monkeypatch.setattr(stage2, name, partial(getattr(stage2, name), **settings))
