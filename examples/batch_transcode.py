"""A folder of audio to tokens and back, with a manifest that says what became of each file.

    python batch_transcode.py recordings/ out/
    python batch_transcode.py recordings/ out/ --device cuda

`recordings/a/b.mp3` becomes `out/a/b.mp3.melcap` and `out/a/b.mp3.wav`, and a line of
`out/manifest.jsonl`. A bad file is written down there and passed by. Started again, it goes on
where it stopped: what the manifest has without an error is not done twice.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import melcap
from melcap.audio import AUDIO_SUFFIXES
from melcap.errors import MelcapError


def transcode(source: Path, place: Path, codec: melcap.Codec) -> dict[str, Any]:
    """One file, in pieces: memory does not grow with its length. Returns what the manifest says."""
    # The whole name and one more suffix, so that a.wav and a.mp3 do not meet in one a.melcap.
    tokens, audio = (place.with_name(f"{place.name}.{suffix}") for suffix in ("melcap", "wav"))
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        melcap.encode_file(source, tokens, codec, force=True)
        done = melcap.decode_file(tokens, audio, codec, force=True)
    except MelcapError as error:
        return {"source": str(source), "error": str(error)}
    return {
        "source": str(source),
        "tokens": str(tokens),
        "audio": str(audio),
        "seconds": round(done.seconds, 3),
        "channels": done.channels,
        "sample_rate": done.sample_rate,
        "kbps": round(done.kbps, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--weights", type=Path, help="instead of the built-in ones")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ...")
    arguments = parser.parse_args()
    folder, target = arguments.folder, arguments.target

    target.mkdir(parents=True, exist_ok=True)
    manifest = target / "manifest.jsonl"
    known = manifest.read_text(encoding="utf-8").splitlines() if manifest.exists() else []
    finished = {line["source"] for line in map(json.loads, known) if "error" not in line}
    sources = [
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in AUDIO_SUFFIXES
        and target not in path.parents
        and str(path) not in finished
    ]
    print(f"{len(sources)} files to do, {len(finished)} done before")

    codec = melcap.load(arguments.weights, arguments.device)
    failed = 0
    with manifest.open("a", encoding="utf-8") as lines:
        for source in sources:
            line = transcode(source, target / source.relative_to(folder), codec)
            print(json.dumps(line), file=lines, flush=True)
            failed += "error" in line
            print(line.get("error") or f"{source}: {line['seconds']} s, {line['kbps']} kbps")
    print(f"{len(sources) - failed} done, {failed} failed: see {manifest}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
