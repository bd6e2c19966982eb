"""Codecs as folders in the layout of the Hugging Face Hub: config.json, weights and a model card.

A folder is read from this machine. A name such as `user/model` is downloaded by `huggingface_hub`,
if that is installed; nothing else in melcap downloads anything.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from melcap.codec import Codec
from melcap.errors import WeightsError
from melcap.extras import import_extra
from melcap.io.files import replacing, require_regular
from melcap.model.quality import Quality
from melcap.pretrained import load, save

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
_TAGS = ("audio", "audio-codec", "neural-audio-codec", "audio-tokenizer", "melcap")


def load_pretrained(
    name: str | os.PathLike[str],
    device: str = "cpu",
    quality: Quality = "default",
    revision: str | None = None,
) -> Codec:
    """Return the codec of a folder or of a repository; see `Codec.from_pretrained`."""
    folder = Path(name)
    if not folder.is_dir():
        folder = _downloaded(os.fspath(name), revision)
    elif revision is not None:
        raise WeightsError(f"{folder}: a folder has no revision {revision}")
    described = _read_config(folder)
    codec = load(folder / WEIGHTS, device, quality=quality)
    if described != json.loads(codec.config.to_json()):
        raise WeightsError(
            f"{folder / CONFIG}: is not the configuration of {WEIGHTS} beside it: save the codec "
            "anew"
        )
    return codec


def save_pretrained(
    codec: Codec, folder: str | os.PathLike[str], license: str | None = None, card: str = ""
) -> None:
    """Write a codec as a folder; see `Codec.save_pretrained`."""
    target = Path(folder)
    try:
        target.mkdir(parents=True, exist_ok=True)
        save(codec, target / WEIGHTS)
        own = load(target / WEIGHTS)  # as it will be: rounded, with the name of its hash
        _write(target / CONFIG, json.dumps(_described(own), indent=2) + "\n")
        if not (target / CARD).exists():
            _write(target / CARD, _card(own, license, card))
    except OSError as error:
        raise WeightsError(f"{target}: cannot write the codec: {error.strerror}") from error


def _described(codec: Codec) -> dict[str, Any]:
    """Return what config.json holds: the configuration, and what people look for there."""
    return {
        "model_type": "melcap",
        "model": codec.model,
        "tokenizer_id": codec.tokenizer_id,
        "sampling_rate": codec.sample_rate,
        "codebook_size": codec.vocab_size,
        "num_codebooks": 1,
        "frame_rate": codec.frame_rate,
        "tokens_per_frame": codec.rows,
        "codec": json.loads(codec.config.to_json()),
    }


def _read_config(folder: Path) -> Any:
    """Return the codec's configuration in config.json."""
    path = folder / CONFIG
    try:
        require_regular(path)
        return json.loads(path.read_text(encoding="utf-8"))["codec"]
    except OSError as error:
        raise WeightsError(
            f"{folder}: not a codec's folder: {CONFIG} cannot be read: {error.strerror}"
        ) from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise WeightsError(f"{path}: not a codec's configuration: {error!r:.200}") from error


def _downloaded(name: str, revision: str | None) -> Path:
    """Return the folder of a repository of the Hub, downloaded if it is not in the cache."""
    owner, _, repository = name.partition("/")
    if not owner.strip(".~") or not repository or "/" in repository:
        raise WeightsError(f"{name}: there is no such folder, and a hub name is like user/model")
    hub = import_extra(
        "huggingface_hub",
        f"pip install huggingface_hub, or name a folder ({name} is none here)",
    )
    try:
        found = hub.snapshot_download(name, revision=revision, allow_patterns=[CONFIG, WEIGHTS])
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise WeightsError(f"{name}: cannot be downloaded: {reason:.300}") from error
    return Path(found)


def _card(codec: Codec, license: str | None, text: str) -> str:
    """Return a model card: YAML front matter, what the codec is, how to use it, and `text`."""
    front = ["---", "library_name: melcap", "pipeline_tag: audio-to-audio"]
    if license is not None:
        front.append(f"license: {json.dumps(license)}")  # a string of JSON is one of YAML
    front += ["tags:", *(f"- {tag}" for tag in _TAGS), "---"]
    facts = (
        f"A neural audio codec for {codec.sample_rate} Hz with one codebook of {codec.vocab_size} "
        f"entries: {codec.tokens_per_second:.1f} tokens a second, {codec.bitrate / 1000:.2f} kbps. "
        f"Model `{codec.model}`, tokenizer `{codec.tokenizer_id}`."
    )
    use = (
        "```python\nimport melcap\n\n"
        'codec = melcap.Codec.from_pretrained("PATH_OR_NAME")\n'
        "codes = codec.encode(wave, sample_rate)\nwave = codec.decode(codes)\n```"
    )
    parts = ["\n".join(front), f"# {codec.config.name}", facts, use, text.strip()]
    return "\n\n".join(part for part in parts if part) + "\n"


def _write(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
