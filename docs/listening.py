"""Make the clips of the listening page, and the tables of players for them.

    python docs/listening.py FOLDER                    the clips of examples/audio
    python docs/listening.py FOLDER --clips RECORDED   the FLAC files of another folder

FOLDER receives, for each clip, the original and what melcap and libopus decode, all as FLAC with
the same number of samples, and the picture of `melcap plot`. `listening.json` lists them with
their bytes and bit rates. The page's players and its blind test are made from that list.

docs/hooks.py imports this module, and lets it run itself with the Python of MELCAP_PYTHON. The
Python that builds the site needs no melcap, so only functions that make clips import it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
CLIPS = ROOT / "examples" / "audio"
INDEX = "listening.json"
PLACE = "clips"
"""The folder of the clips in the site."""

SAMPLE_RATE = 44100
OPUS_KBPS = (6, 12, 16)
"""The rates that libopus is asked for. The rates in the list are those of the bytes it made."""


def write(folder: Path, clips: Path = CLIPS) -> dict[str, Any]:
    """Write all files of the clips and the list of them, and return the list.

    Args:
        folder: where to write; it is made, and files in it are replaced.
        clips: a folder of FLAC files, mono, at 44.1 kHz.

    Raises:
        MelcapError: for a clip of another form, or that cannot be read or coded.
    """
    import melcap
    from melcap.evaluation.peers.opus import Opus

    codec, peers = melcap.load(), [Opus(kbps) for kbps in OPUS_KBPS]
    folder.mkdir(parents=True, exist_ok=True)
    listed = [
        _write_clip(clip, folder, codec, peers)
        for clip in sorted(clips.glob("*.flac"), reverse=True)
    ]
    index = {"sample_rate": SAMPLE_RATE, "clips": listed}
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    return index


def _write_clip(source: Path, folder: Path, codec: Any, peers: list[Any]) -> dict[str, Any]:
    """Write every version of one clip and its picture, and return its entry of the list."""
    import melcap
    from melcap import audio
    from melcap.cli.picture import picture_of_file
    from melcap.errors import InputError

    name = source.stem
    wave, rate = audio.read(source)
    if (len(wave), rate) != (1, SAMPLE_RATE):
        raise InputError(f"{source} must be mono at {SAMPLE_RATE} Hz")
    samples = wave.shape[1]

    def version(key: str, label: str, file: str, size: int) -> dict[str, Any]:
        kbps = size * 8 / (samples / rate) / 1000
        return {"version": key, "label": label, "file": file, "bytes": size, "kbps": kbps}

    original = folder / f"{name}.flac"
    original.write_bytes(source.read_bytes())
    versions = [version("original", "Original, FLAC", original.name, original.stat().st_size)]

    coded, decoded = folder / f"{name}.melcap", folder / f"{name}-melcap.flac"
    size = melcap.encode_file(source, coded, codec, force=True).file_bytes
    melcap.decode_file(coded, decoded, codec, force=True)
    coded.unlink()
    versions.append(version("melcap", "melcap", decoded.name, size))

    for peer in peers:
        decoded = folder / f"{name}-{peer.name}.flac"
        opus, size = peer.round_trip(wave[0], rate)
        audio.write(decoded, opus[None], rate)
        versions.append(version(peer.name, f"Opus {peer.kbps} kbps", decoded.name, size))

    picture = folder / f"{name}.png"
    picture_of_file(source, picture, codec)
    seconds = samples / rate
    return {"clip": name, "seconds": seconds, "picture": picture.name, "versions": versions}


def write_apart(folder: Path) -> None:
    """Run this file with the Python of MELCAP_PYTHON, or else with the one that runs now.

    Raises:
        RuntimeError: where that fails, with its errors.
    """
    python = os.environ.get("MELCAP_PYTHON", sys.executable)
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [python, __file__, str(folder)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(
            f"{python} {__file__} failed; the listening page needs it. Install melcap[plot] "
            f"beside mkdocs, or set MELCAP_PYTHON. Its error: {done.stderr[-2000:]}"
        )


def players(folder: Path) -> str:
    """Return the Markdown of a table of players and a picture for each clip that `write` listed.

    It belongs to a page at the top of the sources.
    """
    parts = []
    for clip in json.loads((folder / INDEX).read_text(encoding="utf-8"))["clips"]:
        name = clip["clip"]
        rows = ["| version | kbps | player |", "| --- | ---: | --- |"]
        for each in clip["versions"]:
            # mkdocs moves the links of Markdown, and leaves HTML: the page has its own folder.
            player = (
                f'<audio controls preload="none" src="../{PLACE}/{each["file"]}" '
                f'aria-label="{name}, {each["label"]}"></audio>'
            )
            rows.append(f"| {each['label']} | {each['kbps']:.2f} | {player} |")
        picture = (
            f"![Log-mel of {name} before and after, and its tokens]({PLACE}/{clip['picture']})"
        )
        parts += [f"## {name.capitalize()}", "\n".join(rows), picture]
    return "\n\n".join(parts)


def blind_test() -> str:
    """Return the HTML of the place where docs/listening.js puts the blind test."""
    return (
        f'<div class="blind-test" data-list="../{PLACE}/{INDEX}">'
        "<noscript><p>The blind test needs JavaScript.</p></noscript></div>"
    )


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="the folder to write to")
    parser.add_argument("--clips", type=Path, default=CLIPS, help="a folder of FLAC files")
    arguments = parser.parse_args()
    if not list(arguments.clips.glob("*.flac")):
        parser.error(f"{arguments.clips} holds no FLAC files")
    from melcap.errors import MelcapError

    try:
        write(arguments.folder, arguments.clips)
    except (MelcapError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
