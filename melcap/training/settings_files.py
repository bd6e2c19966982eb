"""Reading of files with settings: JSON objects of settings of training, or of a codec."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from melcap.config import CodecConfig
from melcap.config.named import NAMES, named
from melcap.errors import InputError, MelcapError
from melcap.training.checks import parsed, require


def read_settings(path: Path) -> dict[str, Any]:
    """Return the settings in a JSON file, of which some may be left out, for `TrainingConfig.of`.

    Raises:
        InputError: naming the file, where it cannot be read, holds no JSON object, or has a setting
            that is not possible.
    """
    found = read_json(path)
    try:
        return {name: parsed(name, value) for name, value in found.items()}
    except MelcapError as error:
        raise InputError(f"{path}: {error}") from error


def read_codec(name: str) -> CodecConfig:
    """Return the codec's configuration with a name, or in a JSON file.

    Args:
        name: one of `melcap.config.named.NAMES`, or a path.

    Raises:
        InputError: naming the file, where it cannot be read or is no configuration of a codec.
    """
    if name in NAMES:
        return named(name)
    path = Path(name)
    if not path.exists():
        raise InputError(
            f"{path}: cannot read the settings: there is neither such a file nor a codec of that "
            f"name, which are {', '.join(NAMES)}"
        )
    found = read_json(path)
    try:
        return CodecConfig.from_json(json.dumps(found))
    except MelcapError as error:
        raise InputError(f"{path}: {error}") from error


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file of settings.

    Raises:
        InputError: naming the file, where it cannot be read or holds no JSON object.
    """
    try:
        return json_object(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot read the settings: {error}") from error
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def json_object(text: str) -> dict[str, Any]:
    """Return the JSON object that a text holds.

    Raises:
        InputError: for a text that is no JSON object.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:  # numbers with too many digits too
        raise InputError(f"training configuration: not JSON: {error}") from error
    require(isinstance(found, dict), f"it must be a JSON object, not {text[:40]!r}")
    return dict(found)
