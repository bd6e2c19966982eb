"""A collection to tokens on a Ray cluster, or on this machine as if it were one.

    python tokenize_ray.py recordings/ tokens/
    RAY_ADDRESS=auto python tokenize_ray.py s3://bucket/recordings/ tokens/ --device cuda

melcap and its extra `ray` must be installed on every machine, and the sources be readable from
each (URLs are opened with fsspec: s3fs, gcsfs). Tokens come back to this machine, which writes the
shards and the journal: started again after whatever happened, it goes on. `melcap tokenize --engine
ray` is the same from the command line.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import melcap
from melcap.bulk.run import Options, Progress, tokenize


def show(state: Progress) -> None:
    print(f"{state.done} of {state.clips} clips, {state.bad} bad, {state.speed:.0f}x real time")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("source")
    parser.add_argument("target", type=Path)
    parser.add_argument("--weights", type=Path, help="instead of the built-in ones")
    parser.add_argument("--device", default="cpu", help="cpu, or cuda for actors with a GPU each")
    parser.add_argument(
        "--actors", type=int, help="at most so many; default: what there is room for"
    )
    arguments = parser.parse_args()

    codec = melcap.load(arguments.weights)
    options = Options(engine="ray", device=arguments.device, lanes=arguments.actors)
    end = tokenize([arguments.source], arguments.target, codec, options, progress=show)
    print(f"{end.done} clips in {arguments.target}; {end.bad} bad: see errors.jsonl there")


if __name__ == "__main__":
    main()
