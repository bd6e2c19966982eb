"""Cost as work grows: time and memory for a second of audio, from 1 s to 3 h and batches to 64."""

from __future__ import annotations

import statistics
from time import perf_counter
from typing import Any

from clips import clip
from memory import peak_memory
from rich.progress import track

import melcap

LENGTHS = (1.0, 3.0, 10.0, 60.0, 600.0, 3600.0, 10800.0)
BATCHES = (1, 2, 4, 8, 16, 32, 64)
BATCH_SECONDS = 10.0


def growth() -> dict[str, Any]:
    """Return a row for each length alone and for each batch of 10 s clips, on a CPU.

    Short clips are timed five times, and those of ten minutes or more once. Memory is the peak of a
    fresh process less what it had before the clips; it includes the audio that goes in and out.
    """
    codec = melcap.load()
    rate = codec.config.mel.sample_rate
    codec.decode(codec.encode(clip(1.0, rate), rate))
    rows = []
    settings = [(seconds, 1) for seconds in LENGTHS] + [(BATCH_SECONDS, n) for n in BATCHES[1:]]
    for seconds, batch in track(settings, "lengths and batches"):
        wave = clip(seconds, rate).expand(batch, -1)
        encoding, decoding = [], []
        for _ in range(5 if seconds * batch < 600 else 1):
            began = perf_counter()
            codes = codec.encode(wave, rate)
            between = perf_counter()
            codec.decode(codes)
            encoding.append(between - began)
            decoding.append(perf_counter() - between)
        del codes, wave
        memory = peak_memory("melcap-torch", seconds, batch)
        rows.append(
            {
                "seconds": seconds,
                "batch": batch,
                "encode_ms_per_s": 1e3 * statistics.median(encoding) / (seconds * batch),
                "decode_ms_per_s": 1e3 * statistics.median(decoding) / (seconds * batch),
                "work_mb": memory["peak_mb"] - memory["before_mb"],
                "audio_mb": seconds * batch * rate * 4 / 2**20,
            }
        )
    return {"rows": rows}
