"""A program that streams until it is killed: `python living.py SHARD...`.

It prints the ids of its processes.
"""

from __future__ import annotations

import multiprocessing
import sys
import time

from melcap.training.stream.sampler import StreamOptions, StreamSampler

if __name__ == "__main__":
    options = StreamOptions(memory_gb=2e-4, decoders=2)
    with StreamSampler(sys.argv[1:], 100, 4, 0, options=options) as sampler:
        sampler.next()
        print(*(child.pid for child in multiprocessing.active_children()), flush=True)
        time.sleep(600)
