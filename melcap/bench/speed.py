"""Encoding and decoding in times real time: median and quartiles of rounds, taken in turns."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any, TypeVar

import torch
from torch import Tensor

from melcap.audio_codec import AudioCodec
from melcap.bench.agreement import disagreement
from melcap.bench.clips import Clip
from melcap.codes import Codes
from melcap.errors import MelcapError
from melcap.ops import use_backend

LONGEST_CALL = 30.0
"""Seconds. A call that takes longer is not timed, and is named."""
LEAST_ROUNDS = 3
CHECKED_SECONDS = 3.0
"""Seconds of audio on which results are compared before anything is timed."""

Row = dict[str, Any]
Made = TypeVar("Made")


@dataclass(frozen=True)
class Contender:
    """One codec on one device.

    Attributes:
        name: what tables call it.
        sample_rate: the rate of its waves, in Hz.
        device: the device that its waves are on.
        encode: takes waves [batch, samples] and returns what `decode` takes.
        decode: returns waves of any shape with the batch first.
    """

    name: str
    sample_rate: int
    device: str
    encode: Callable[[Tensor], Any]
    decode: Callable[[Any], Tensor]


@dataclass(frozen=True)
class Setting:
    """A measurement: a batch of equal clips, timed in rounds.

    Attributes:
        seconds: the length of a clip.
        batch: the number of clips.
        rounds: how often each call is timed. A slow call has fewer rounds: as many as take
            `LONGEST_CALL` seconds, but `LEAST_ROUNDS` at least.
        threads: the number of threads that torch has, for the rows; None on a GPU.
    """

    seconds: float
    batch: int
    rounds: int
    threads: int | None = None

    def __str__(self) -> str:
        length = f"{self.seconds:g} s"
        return length if self.batch == 1 else f"{self.batch} clips of {length}"


def measure(
    codec: AudioCodec,
    backend: str,
    reference: AudioCodec,
    settings: Iterable[Setting],
    clip: Clip,
) -> tuple[list[Row], list[str]]:
    """Compare a codec with the reference, and time it in every setting.

    Args:
        codec: the codec, on any device.
        backend: the backend that it runs on.
        reference: another codec with the same weights, on a CPU.
        settings: what to time.
        clip: makes the audio.

    Returns:
        The rows of `in_turns`, and what was left out.

    Raises:
        MelcapError: tokens or samples are not those of the reference. Nothing is timed then.
    """
    contender = contender_of(codec, backend, codec.model)
    wave = clip(CHECKED_SECONDS, codec.sample_rate)[None].to(contender.device)
    codes = settled(partial(contender.encode, wave), contender.device)
    decoded = settled(partial(contender.decode, codes), contender.device)
    if reason := disagreement(codes, decoded, wave, reference):
        raise MelcapError(f"nothing is timed, as the results are not the reference's: {reason}")
    rows, left_out = [], []
    for setting in settings:
        found, slow = in_turns({"": contender}, setting, clip)
        rows += found
        left_out += slow
    return rows, left_out


def contender_of(codec: AudioCodec, backend: str, name: str) -> Contender:
    """Return a codec of melcap as a contender that runs on this backend."""
    rate = codec.sample_rate

    def encode(wave: Tensor) -> Codes:
        with use_backend(backend):
            return codec.encode(wave, rate)

    def decode(codes: Codes) -> Tensor:
        with use_backend(backend):
            return codec.decode(codes)

    return Contender(name, rate, str(codec.device), encode, decode)


def settled(call: Callable[[], Made], device: str) -> Made:
    """Return the result of a call as later ones compute it.

    A codec on a GPU records CUDA graphs at the second use of a shape.
    """
    made = call()
    return made if device == "cpu" else call()


def timed(call: Callable[[], Made], device: str) -> tuple[float, Made]:
    """Return the seconds of a call, until the device has finished, and its result."""
    began = perf_counter()
    made = call()
    synchronize(device)
    return perf_counter() - began, made


def synchronize(device: str) -> None:
    """Wait until a device has finished its work."""
    if device != "cpu":
        torch.cuda.synchronize(device)


def in_turns(
    contenders: Mapping[str, Contender], setting: Setting, clip: Clip
) -> tuple[list[Row], list[str]]:
    """Time contenders in turns, so that a drift of the machine's speed affects all alike.

    A first round is not counted: it warms caches up, lets graphs be recorded, and finds calls that
    take too long.

    Args:
        contenders: the contenders, by any name.
        setting: the clips and the rounds.
        clip: makes the audio.

    Returns:
        A row for each contender and way, encode or decode, with the median and the quartiles of its
        speed in times real time; and sentences about what was left out.
    """
    calls: dict[tuple[str, str], Callable[[], object]] = {}
    firsts, left_out = {}, []
    for name, contender in contenders.items():
        wave = clip(setting.seconds, contender.sample_rate)
        batch = wave.expand(setting.batch, -1).to(contender.device)
        call: Callable[[], object] = partial(contender.encode, batch)
        for way in ("encode", "decode"):
            try:
                first, made = timed(partial(settled, call, contender.device), contender.device)
            except torch.OutOfMemoryError:
                torch.cuda.empty_cache()
                left_out.append(f"{contender.name}: no memory for {way} of {setting}")
                break
            if first > LONGEST_CALL:
                left_out.append(f"{contender.name}: {way} of {setting} takes {first:.0f} s")
                break
            calls[name, way], firsts[name, way] = call, first
            call = partial(contender.decode, made)
    taken: dict[tuple[str, str], list[float]] = {key: [] for key in calls}
    for done in range(setting.rounds):
        for key, call in calls.items():
            if done < max(LEAST_ROUNDS, min(setting.rounds, LONGEST_CALL / firsts[key])):
                taken[key].append(timed(call, contenders[key[0]].device)[0])
    return [
        _row(contenders[name].name, way, setting, times) for (name, way), times in taken.items()
    ], left_out


def _row(codec: str, way: str, setting: Setting, times: list[float]) -> Row:
    audio = setting.seconds * setting.batch
    low, middle, high = statistics.quantiles(times, n=4)
    return {
        "codec": codec,
        "way": way,
        "threads": setting.threads,
        "seconds": setting.seconds,
        "batch": setting.batch,
        "x_real_time": audio / middle,
        "p25": audio / high,
        "p75": audio / low,
        "rounds": len(times),
    }


def speed_in_words(row: Row) -> str:
    """Return the median and the quartiles of a row's speed as text, such as 41.3 (39.8 to 42.0)."""
    middle, low, high = (
        f"{x:.1f}" if x < 100 else f"{x:.0f}" for x in (row["x_real_time"], row["p25"], row["p75"])
    )
    return f"{middle} ({low} to {high})"
