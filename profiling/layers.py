"""Profile melcap by stage: time and FLOP, against the rates of this machine."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from clips import clip
from machine import rates

import melcap
from melcap.bench.speed import timed
from melcap.model.stages import Stage, inputs_for
from melcap.ops.flops import count

ROUNDS = 15
SECONDS = 10.0


def profile(device: str) -> dict[str, Any]:
    """Return a row for each stage of encoding and decoding a 10 s clip in one chunk, with medians.

    `gflop` counts products, convolutions and FFTs. `share` is the rate reached over the rate that
    this machine reaches in 3 x 3 convolutions. "the rest" is what no stage accounts for: padding,
    chunks, and the copies between stages.
    """
    codec = melcap.load(device=device)
    rate = codec.config.mel.sample_rate
    wave = clip(SECONDS, rate)
    codes = codec.encode(wave[None].to(device), rate)
    columns = codes.tokens.shape[-1]
    ceilings = rates() if device == "cpu" else {}
    first, last = inputs_for(codec.encode_stages, 0, columns)
    signal = torch.zeros(1, last - first, device=device)
    signal[0, -first : len(wave) - first] = wave.to(device)
    samples = columns * codec.config.column_samples
    first, last = inputs_for(codec.decode_stages, 0, samples)
    quiet = codec.silence[None, :, None]
    tokens = torch.cat(
        (quiet.expand(1, -1, -first), codes.tokens, quiet.expand(1, -1, last - columns)), dim=-1
    )
    encoding = [*_named(codec.encode_stages), ("codebook search", codec.codebook.tokens)]
    decoding = [("codebook", codec.codebook.latents), *_named(codec.decode_stages)]
    rows = []
    for way, steps, given, whole in (
        ("encode", encoding, signal, lambda: codec.encode(wave, rate)),
        ("decode", decoding, tokens, lambda: codec.decode(codes)),
    ):
        taken: list[list[float]] = [[] for _ in steps]
        total = []
        for turn in range(ROUNDS + 2):
            x = given
            for index, (_, step) in enumerate(steps):
                spent, x = timed(partial(step, x), device)
                if turn > 1:
                    taken[index].append(spent)
            spent, _ = timed(whole, device)
            if turn > 1:
                total.append(spent)
        work, x = [], given
        for _, step in steps:
            kinds, x = count(step, x)
            work.append(kinds.total())
        for (name, _), times, flop in zip(steps, taken, work, strict=True):
            rows.append(_row(way, name, statistics.median(times), flop, ceilings))
        rest = statistics.median(total) - sum(statistics.median(times) for times in taken)
        rows.append(_row(way, "the rest", rest, 0, ceilings))
        rows.append(_row(way, "all", statistics.median(total), sum(work), ceilings))
    return {"rows": rows, "rates": ceilings, "threads": torch.get_num_threads()}


def _named(stages: Sequence[Stage]) -> list[tuple[str, Stage]]:
    """Return stages with names made of their place and class."""
    return [(f"{place} {type(stage).__name__}", stage) for place, stage in enumerate(stages)]


def _row(
    way: str, name: str, taken: float, flop: int, ceilings: dict[str, float]
) -> dict[str, Any]:
    row = {"way": way, "stage": name, "ms": 1e3 * taken, "gflop": flop / 1e9}
    if ceilings and flop:
        row |= {"gflop_per_s": flop / taken / 1e9, "share": flop / taken / ceilings["convolution"]}
    return row
