"""Small runs for one process and for two, in float64: `python -m tests.training.together FOLDER`.

In float64 the order of sums changes the 16th digit alone, so that runs of one process and of two
can be compared closely. In float32 the first steps of AdamW and Muon would turn rounding into
whole steps, wherever a gradient is zero but for rounding.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from torch import Tensor

from melcap.cli.exits import exit_on_errors
from melcap.errors import MelcapError
from melcap.ops.log_mel import mel_filters
from melcap.ops.numerics import hann_window
from melcap.training import losses, ranks, spectra
from melcap.training.audio_cache import AudioCache
from melcap.training.launch import processes
from melcap.training.stream.sampler import StreamOptions, StreamSampler
from tests.training.conftest import use_few_discriminators, use_few_scales
from tests.training.helpers import joint_stage, stage_1, stage_2, tokenizer, train_to

FIRST, LAST = 4, 6
"""The step at which runs are handed to another number of processes, and the last one."""
RUNS: dict[str, Callable[..., Any]] = {
    # k-means starts the codebook in the third step, and entries without hits die in the same step.
    "tokenizer": partial(
        stage_1,
        codebook_warmup=2,
        codebook_dead=0.5,
        codebook_decay=0.2,
        discriminators=2,
        texture_weight=1.0,
    ),
    "warm-up": partial(stage_1, codebook_warmup=LAST - 1),
    "mel-decoder": partial(stage_1, decoder_only=True),
    "vocoder": partial(stage_2, columns=2),
    "waves": lambda **settings: stage_2(
        tokenizer(),
        columns=4,
        discriminators=2,
        discriminator_columns=2,
        complex_weight=0.5,
        phase_weight=0.5,
        **settings,
    ),
    "joint": partial(joint_stage, columns=2, picture_weight=0.5, codebook_decay=0.2),
    "constant-phase": lambda **settings: stage_2(
        tokenizer(), columns=2, constant_phase=True, **settings
    ),
}
"""Recipes by name, without the settings that all have in common."""


def run(
    name: str,
    cache: AudioCache,
    folder: Path,
    step: int,
    accumulate: int = 1,
    spoil: Callable[[Any, dict[str, Tensor]], None] | None = None,
    **settings: Any,
) -> None:
    """Train a recipe of `RUNS` to a step, in folder/NAME/run, with 4 crops in a step.

    Args:
        name: the name of the recipe.
        cache: the training audio.
        folder: the folder of runs.
        step: the step at which training ends.
        accumulate: the number of pieces.
        spoil: is called with the recipe and its figures after each step.
        settings: other settings.
    """
    torch.manual_seed(0)
    recipe = RUNS[name](**{"batch": 4, "warmup": 1, **settings})
    for part in (
        recipe.front,
        getattr(recipe, "codebook", recipe.front),
        *recipe.modules().values(),
    ):
        part.double()
    recipe.accumulate = accumulate
    take_step = recipe.step

    def in_double(wave: Tensor) -> dict[str, Tensor]:
        figures: dict[str, Tensor] = take_step(wave.double())
        if spoil is not None:
            spoil(recipe, figures)
        return figures

    recipe.step = in_double
    (folder / name).mkdir(parents=True, exist_ok=True)
    train_to(step, recipe, cache, folder / name / "run", log_every=1)


@contextmanager
def in_float64() -> Iterator[None]:
    """Compute in float64 where the code says float32, and with few discriminators and scales."""
    single = Tensor.float

    def keep_double(x: Tensor) -> Tensor:
        return x if x.dtype == torch.float64 else single(x)

    def window(n_fft: int, _: torch.dtype, device: torch.device) -> Tensor:
        return hann_window(n_fft, torch.float64, device)

    def filters(rate: int, n_fft: int, bins: int, _: torch.dtype, device: torch.device) -> Tensor:
        return mel_filters(rate, n_fft, bins, torch.float64, device)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tensor, "float", keep_double)
        patch.setattr(spectra, "hann_window", window)
        patch.setattr(losses, "mel_filters", filters)
        use_few_discriminators(patch)
        use_few_scales(patch)
        yield


def main(folder: Path) -> None:
    """Train all runs in this process and its peers, then fail.

    Runs of two processes go to folder/two and, in two pieces, to folder/pieces. Those in
    folder/from-one, which one process began, go on to the last step. What the processes refuse
    goes to folder/refusals, and what they decide together to folder/led.RANK.
    """
    torch.set_num_threads(1)
    cache = AudioCache(folder / "cache")
    with exit_on_errors(), processes() as together, in_float64():
        together.begin("cpu")
        for name in RUNS:
            run(name, cache, folder / "two", FIRST)
            run(name, cache, folder / "pieces", FIRST, accumulate=2)
            run(name, cache, folder / "from-one", LAST)
        refusals(cache, folder / "refusals")
        stream(folder)
        led = (ranks.clock(), ranks.lead(10.0 + ranks.rank(), ranks.rank() == 1), ranks.greatest(7))
        (folder / f"led.{ranks.rank()}").write_text(repr((time.monotonic(), *led)))
        if ranks.rank() == 1:
            raise MelcapError("this one fails")
        ranks.clock()


def stream(folder: Path) -> None:
    """Draw crops from the shards in folder/shards, resume, and write what each process has.

    folder/stream.RANK holds the crops, the crops after a resume, the state for a checkpoint and the
    hours.
    """
    shards = [str(path) for path in sorted((folder / "shards").iterdir())]

    def sampler() -> StreamSampler:
        options = StreamOptions(1e-3, decoders=2, processes=False)
        place = {"rank": ranks.rank(), "world": ranks.count()}
        return StreamSampler(shards, 50, 6, 0, options=options, **place)

    with sampler() as first:
        crops = [first.next() for _ in range(4)]
        state = first.state_of_all(first.state_dict())
        hours = first.hours()
        later = first.next()
    with sampler() as second:
        second.load_state_dict(state)
        again = second.next()
    found = (torch.cat(crops).tolist(), torch.equal(later, again), state, hours)
    (folder / f"stream.{ranks.rank()}").write_text(repr(found))


def refusals(cache: AudioCache, folder: Path) -> None:
    """Begin runs that must end, and write to folder/NAME.RANK what each process says."""

    def infinite(recipe: Any, figures: dict[str, Tensor]) -> None:
        figures["mel_l1"] /= 1 - ranks.rank()

    def apart(recipe: Any, _: dict[str, Tensor]) -> None:
        with torch.no_grad():
            next(recipe.decoder.parameters()).view(-1)[0] *= 1 + ranks.rank() * 2**-52

    def other_numbers(recipe: Any, _: dict[str, Tensor]) -> None:
        torch.rand(ranks.rank())

    begun: dict[str, dict[str, Any]] = {
        "infinite": {"spoil": infinite},
        "apart": {"spoil": apart},
        "random": {"spoil": other_numbers},
        "settings": {"rate": 1e-3 * (1 + ranks.rank())},
    }
    folder.mkdir(exist_ok=True)
    for name, options in begun.items():
        with pytest.raises(MelcapError) as caught:
            run("mel-decoder", cache, folder / name, 3, **options)
        (folder / f"{name}.{ranks.rank()}").write_text(str(caught.value))
        ranks.clock()  # neither ends while the other one reads


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except typer.Exit as ended:  # as the command line ends
        sys.exit(ended.exit_code)
