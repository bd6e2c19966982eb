"""Tokenize a collection on a Ray cluster, or on the processors of this machine.

    python tokenize_ray.py recordings/ tokens/
    RAY_ADDRESS=auto python tokenize_ray.py s3://bucket/recordings/ tokens/ --device cuda

melcap and its extra `ray` must be installed on every machine, and every machine must be able to
read the sources (fsspec opens URLs, with s3fs or gcsfs). Tokens come back to this machine, which
writes the shards and the journal. Started again after an interruption, the script resumes. `melcap
tokenize --engine ray` does the same from the command line.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import melcap
from melcap.bulk.tokenize import Options, RunState, tokenize


def show(state: RunState) -> None:
    """Print the state of the run."""
    print(f"{state.done} of {state.clips} clips, {state.bad} bad, {state.speed:.0f}x real time")


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("source", help="a folder, file, manifest or URL of audio")
    parser.add_argument("target", type=Path, help="the folder for the token set")
    parser.add_argument("--weights", type=Path, help="a weights file instead of the default one")
    parser.add_argument("--device", default="cpu", help="cpu, or cuda for one GPU for each actor")
    parser.add_argument(
        "--actors", type=int, help="the most actors; default: as many as there is room for"
    )
    arguments = parser.parse_args()

    codec = melcap.load(arguments.weights)
    options = Options(engine="ray", device=arguments.device, encoders=arguments.actors)
    end = tokenize([arguments.source], arguments.target, codec, options, progress=show)
    print(f"{end.done} clips in {arguments.target}; {end.bad} bad: see errors.jsonl there")


if __name__ == "__main__":
    main()
