"""The settings with which a published checkpoint was trained: the YAML file beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from melcap.config import BaseConfig
from melcap.errors import WeightsError
from melcap.extras import import_extra
from melcap.io.files import require_regular


def check_settings(path: Path, config: BaseConfig, stage1: Path, force: bool) -> None:
    """Compare the settings of stage 2 with a configuration.

    Args:
        path: config.yaml of the training run.
        config: the configuration that follows from the weights.
        stage1: the file of stage 1, whose name the settings must have.
        force: accept another name.

    Raises:
        WeightsError: for a file that is no such settings, and for those that do not fit.
        MelcapError: where PyYAML is not installed.
    """
    yaml = import_extra("yaml", "pip install pyyaml, or leave out --config")
    try:
        require_regular(path)
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
        model = settings["model"]["init_args"]
        features = model["feature_extractor"]["init_args"]
        head = model["head"]["init_args"]
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise WeightsError(
            f"{path}: is not the config.yaml of a training run of stage 2: {error!r:.200}"
        ) from error
    mel = config.mel
    expected = {"sample_rate": mel.sample_rate, "n_mels": mel.n_mels}
    common = {"n_fft": mel.n_fft, "hop_length": mel.hop, "padding": "center"}
    _compare(path, "feature_extractor", features, {**expected, **common})
    _compare(path, "head", head, common)
    name = Path(str(features.get("vae_ckpt_path", stage1.name))).name
    if name != stage1.name and not force:
        raise WeightsError(
            f"{path}: stage 2 was trained on the tokenizer {name}, and the file of stage 1 is "
            f"{stage1.name}: pass {name}, or --force if the file was renamed"
        )


def _compare(path: Path, part: str, found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    for key, value in expected.items():
        if found.get(key, value) != value:
            raise WeightsError(
                f"{path}: {part} has {key} {found[key]!r:.80}, and melcap's published architecture "
                f"needs {value!r}"
            )
