"""Codecs as folders in the layout of the Hugging Face Hub: config.json, weights and a model card.

A local folder is read as it is. A name such as `user/model` is downloaded by `huggingface_hub`,
where that is installed. Nothing else in melcap downloads anything.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from melcap.config import BaseConfig
from melcap.errors import WeightsError
from melcap.extras import import_extra
from melcap.io import weights_file
from melcap.io.files import require_regular, write_text
from melcap.io.weights_file import WeightsFile
from melcap.model.base.network import BaseNetwork
from melcap.model.network import Network
from melcap.stored_weights import Built, any_network_of, save

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
_TAGS = ("audio", "audio-codec", "neural-audio-codec", "audio-tokenizer", "melcap")


def load_pretrained(
    name: str | os.PathLike[str], revision: str | None, build: Callable[[WeightsFile], Built]
) -> Built:
    """Return what `build` makes of a folder's weights; see `melcap.Codec.from_pretrained`."""
    folder = Path(name)
    if not folder.is_dir():
        folder = _downloaded(os.fspath(name), revision)
    elif revision is not None:
        raise WeightsError(f"{folder}: a local folder has no revisions: leave out {revision!r:.80}")
    config = _read_config(folder)
    network = build(weights_file.read(folder / WEIGHTS))
    if config != json.loads(network.config.to_json()):
        raise WeightsError(
            f"{folder / CONFIG}: is not the configuration of {WEIGHTS} beside it: save the codec "
            "again"
        )
    return network


def save_pretrained(
    network: Network | BaseNetwork,
    folder: str | os.PathLike[str],
    license: str | None,
    card: str,
) -> None:
    """Write a network to a folder; see `melcap.Codec.save_pretrained`."""
    target = Path(folder)
    try:
        target.mkdir(parents=True, exist_ok=True)
        save(network, target / WEIGHTS)
        # Saving may have rounded the weights: another hash, and perhaps another tokenizer.
        saved = any_network_of(weights_file.read(target / WEIGHTS))
        write_text(target / CONFIG, json.dumps(_config_content(saved), indent=2) + "\n")
        if not (target / CARD).exists():
            write_text(target / CARD, _card(saved, license, card))
    except OSError as error:
        raise WeightsError(f"{target}: cannot write the codec: {error.strerror}") from error


def _config_content(network: Network | BaseNetwork) -> dict[str, Any]:
    """Return the content of config.json: the configuration, and numbers that users look up."""
    config = network.config
    return {
        "model_type": "melcap",
        "model": network.model,
        "tokenizer_id": network.tokenizer_id,
        "sampling_rate": config.mel.sample_rate,
        "codebook_size": config.tokenizer.codebook_size,
        "num_codebooks": 1,
        "frame_rate": config.frame_rate,
        "tokens_per_frame": config.rows,
        "codec": json.loads(config.to_json()),
    }


def _read_config(folder: Path) -> Any:
    """Return the codec's configuration in config.json."""
    path = folder / CONFIG
    try:
        require_regular(path)
        return json.loads(path.read_text(encoding="utf-8"))["codec"]
    except OSError as error:
        raise WeightsError(
            f"{folder}: not the folder of a codec: {CONFIG} cannot be read: {error.strerror}"
        ) from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise WeightsError(f"{path}: not the configuration of a codec: {error!r:.200}") from error


def _downloaded(name: str, revision: str | None) -> Path:
    """Return the folder of a repository of the Hub, downloaded if it is not in the cache."""
    owner, _, repository = name.partition("/")
    if not owner.strip(".~") or not repository or "/" in repository:
        raise WeightsError(
            f"{name}: there is no such folder, and it is not a name on the Hub, such as user/model"
        )
    hub = import_extra(
        "huggingface_hub",
        f"pip install huggingface_hub, or give the path of a folder ({name} is not one)",
    )
    try:
        found = hub.snapshot_download(name, revision=revision, allow_patterns=[CONFIG, WEIGHTS])
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise WeightsError(f"{name}: cannot be downloaded: {reason:.300}") from error
    return Path(found)


def front_matter(license: str | None = None) -> str:
    """Return the YAML at the beginning of a model card, which the Hub reads.

    Args:
        license: the licence of the weights; None for a card that names none.
    """
    lines = ["---", "library_name: melcap", "pipeline_tag: audio-to-audio"]
    if license is not None:
        lines.append(f"license: {json.dumps(license)}")  # a string in JSON is a string in YAML
    return "\n".join([*lines, "tags:", *(f"- {tag}" for tag in _TAGS), "---"])


def _card(network: Network | BaseNetwork, license: str | None, text: str) -> str:
    """Return a model card: YAML front matter, what the codec is, how to use it, and `text`."""
    config = network.config
    kind, module, name = "A neural audio codec", "melcap", "Codec"
    if isinstance(config, BaseConfig):
        kind += " of the published MelCap architecture (arXiv 2510.01903)"
        module, name = "melcap.base_codec", "BaseCodec"
    facts = (
        f"{kind} for {config.mel.sample_rate} Hz with one codebook of "
        f"{config.tokenizer.codebook_size} entries: {config.tokens_per_second:.1f} tokens a second,"
        f" {config.bits_per_second / 1000:.2f} kbps. Model `{network.model}`, tokenizer "
        f"`{network.tokenizer_id}`."
    )
    use = (
        f"```python\nimport {module}\n\n"
        f'codec = {module}.{name}.from_pretrained("PATH_OR_NAME")\n'
        "codes = codec.encode(wave, sample_rate)\nwave = codec.decode(codes)\n```"
    )
    parts = [front_matter(license), f"# {config.name}", facts, use, text.strip()]
    return "\n\n".join(part for part in parts if part) + "\n"
