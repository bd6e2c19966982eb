"""Fixtures that tests of training share."""

from __future__ import annotations

from functools import partial

import pytest

from melcap.training import losses, stage2


@pytest.fixture
def few_discriminators(monkeypatch: pytest.MonkeyPatch) -> None:
    use_few_discriminators(monkeypatch)


@pytest.fixture
def few_scales(monkeypatch: pytest.MonkeyPatch) -> None:
    use_few_scales(monkeypatch)


def use_few_discriminators(patch: pytest.MonkeyPatch) -> None:
    """Use one discriminator of either kind, which is enough where their number does not matter."""
    for name, settings in (
        ("MultiPeriodDiscriminator", {"periods": (2,)}),
        ("MultiResolutionDiscriminator", {"sizes": (512,), "bands": (0.0, 1.0)}),
        ("MagnitudeDiscriminator", {"sizes": (512,)}),
    ):
        patch.setattr(stage2, name, partial(getattr(stage2, name), **settings))


def use_few_scales(patch: pytest.MonkeyPatch) -> None:
    """Compute the losses of stage 2 at two scales or one, where their number does not matter."""
    for name, settings in (
        ("multi_resolution_stft_loss", {"sizes": (512, 256)}),
        ("multi_scale_mel_loss", {"scales": ((512, 40), (256, 20))}),
        ("texture_loss", {"scales": ((512, 40),)}),
        ("complex_stft_loss", {"sizes": (256,)}),
        ("phase_loss", {"sizes": (256,)}),
    ):
        patch.setattr(losses, name, partial(getattr(losses, name), **settings))
