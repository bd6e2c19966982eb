"""The checks of published weights: names, shapes, numbers, and the tables that come with them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from melcap.config import BaseConfig
from melcap.errors import WeightsError
from melcap.io.weights_file import check_finite
from melcap.model.base.network import BaseNetwork
from melcap.model.base.published import (
    MEL_FILTERS,
    READ_OF_STAGE_1,
    READ_OF_STAGE_2,
    WINDOWS,
    config_of,
    state_of,
)
from melcap.ops.log_mel.reference import mel_filters
from melcap.ops.numerics import hann_window

State = Mapping[str, Tensor]

_CLOSE = 1e-5
"""The largest difference of a table, which torchaudio computes in float32."""


def checked(
    stage1: State, stage2: State, paths: tuple[Path, Path], activation: str, name: str
) -> tuple[BaseConfig, dict[str, Tensor]]:
    """Return the configuration and the state that two checkpoints hold.

    Args:
        stage1: the tensors of the tokenizer.
        stage2: the tensors of the mel decoder and the vocoder.
        paths: the files of both, for errors.
        activation: "tanh" or "silu".
        name: of the model.

    Raises:
        WeightsError: for tensors that are missing, of another shape, NaN or not known, and for mel
            filters or windows unlike those of melcap.
    """
    read = [(stage1, READ_OF_STAGE_1, paths[0]), (stage2, READ_OF_STAGE_2, paths[1])]
    for state, prefixes, path in read:
        own = {key: value for key, value in state.items() if key.startswith(prefixes)}
        check_finite(own, f"{path}: cannot be converted")
    try:
        config = config_of(stage1, stage2, activation, name)
        state = state_of(stage1, stage2)
    except KeyError as error:
        raise WeightsError(f"{' and '.join(map(str, paths))}: lack the tensor {error}") from error
    except (ValueError, IndexError, ZeroDivisionError) as error:
        raise WeightsError(
            f"{paths[0]} and {paths[1]}: tensors have other shapes than published ones"
        ) from error
    except WeightsError as error:
        raise WeightsError(f"{paths[0]} and {paths[1]}: {error}") from error
    with torch.device("meta"):
        expected = {
            key: value.shape
            for key, value in BaseNetwork(config).state_dict().items()
            if key != "silence"
        }
    missing = sorted(set(expected) - set(state))
    strays = sorted(set(state) - set(expected))
    shapes = [key for key in expected if key in state and state[key].shape != expected[key]]
    for found, what in ((missing, "lack"), (strays, "have unknown"), (shapes, "have misshapen")):
        if found:
            listed = ", ".join(found[:3]) + (f" and {len(found) - 3} more" * (len(found) > 3))
            raise WeightsError(
                f"{paths[0]} and {paths[1]} {what} tensors (melcap's names): {listed}"
            )
    _check_tables(stage2, config, paths[1])
    return config, {key: value.float() for key, value in state.items()}


def _check_tables(stage2: State, config: BaseConfig, path: Path) -> None:
    """Compare the windows and mel filters of a checkpoint, where it has them, with melcap's."""
    mel, cpu = config.mel, torch.device("cpu")
    window = hann_window(mel.n_fft, torch.float32, cpu)
    filters = mel_filters(mel.sample_rate, mel.n_fft, mel.n_mels, torch.float32, cpu)
    for name, expected in {**dict.fromkeys(WINDOWS, window), MEL_FILTERS: filters}.items():
        found = stage2.get(name)
        if found is None:
            continue
        if found.shape != expected.shape or (found.float() - expected).abs().max() > _CLOSE:
            raise WeightsError(
                f"{path}: {name} is not that of {mel.n_mels} HTK mel bins, a periodic Hann window "
                f"of {mel.n_fft} samples and {mel.sample_rate} Hz, which the published code uses"
            )
