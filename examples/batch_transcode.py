"""Encode and decode a folder of audio, with a manifest of the results.

    python batch_transcode.py recordings/ out/
    python batch_transcode.py recordings/ out/ --device cuda

`recordings/a/b.mp3` becomes `out/a/b.mp3.melcap` and `out/a/b.mp3.wav`, and a line of
`out/manifest.jsonl`. A file that cannot be read gets a line with its error, and the run continues.
Started again, the script skips files that the manifest lists without an error.
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
    """Encode and decode one file in bounded memory, and return its line of the manifest."""
    # The whole name and one more suffix, so that a.wav and a.mp3 do not share one a.melcap.
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
    """Run the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="the folder of audio")
    parser.add_argument("target", type=Path, help="the folder for the results")
    parser.add_argument("--weights", type=Path, help="a weights file instead of the default one")
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
