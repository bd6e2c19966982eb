"""Where a run tells how it does: a line of JSON each time, and TensorBoard beside it.

    OUT/stage2.jsonl              a line each `log_every` steps
    OUT/tensorboard/stage2/       the same as curves; pictures and audio of a few crops

A run that resumes goes on with both. TensorBoard and matplotlib come with melcap[train]; without
them there are the lines alone.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from melcap.config import MelSpec
from melcap.io.files import replacing
from melcap.ops import log_mel, use_backend
from melcap.plot.spectrogram import MEL, RANGE_DB
from melcap.training.crops import CropSampler
from melcap.training.data import AudioCache
from melcap.training.recipe import Recipe

EXAMPLE_COLUMNS = 64
"""Of the crops that are shown: 3 s of the lite codec."""
_PROGRESS = ("minutes", "rate", "audio_seconds_per_second")


class TrainingLog:
    """The log of the run whose checkpoint is `checkpoint`, which stands at `step`.

    What was logged behind that step, by a run that was stopped before it saved, is taken back: the
    same steps come again. `tell` is given what a person should read.
    """

    def __init__(self, checkpoint: Path, step: int, tell: Callable[[str], None]) -> None:
        self._lines = checkpoint.with_suffix(".jsonl")
        if step and self._lines.exists():
            _cut(self._lines, step)
        self._writer: Any = None
        try:
            importlib.import_module("matplotlib")
            board = importlib.import_module("torch.utils.tensorboard")
        except ImportError:
            tell(f'no TensorBoard here, only {self._lines}: pip install "melcap[train]"')
            return
        folder = checkpoint.parent / "tensorboard" / checkpoint.stem
        self._writer = board.SummaryWriter(str(folder), purge_step=step + 1, flush_secs=30)

    def row(self, row: Mapping[str, float]) -> None:
        """The figures of the steps up to row["step"]."""
        with self._lines.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        if self._writer is not None:
            for name in row.keys() - {"step"}:
                tag = f"{'progress' if name in _PROGRESS else 'figures'}/{name}"
                self._writer.add_scalar(tag, row[name], row["step"])

    def examples(self, recipe: Recipe, crops: Mapping[str, Tensor], step: int) -> None:
        """Pictures before and after of crops by class (see `crops_by_class`), and what is heard."""
        if self._writer is None:
            return
        for label, crop in crops.items():
            before, after = recipe.reconstruct(crop, EXAMPLE_COLUMNS)
            shown = picture(before[0].cpu(), after[0].float().cpu(), recipe.config.codec.mel)
            self._writer.add_image(f"{label}/before and after", shown, step, dataformats="HWC")
            if before.ndim == 2:
                for name, wave in (("before", before), ("after", after)):
                    heard = wave.clamp(-1, 1).cpu()
                    self._writer.add_audio(f"{label}/{name}", heard, step, MEL.sample_rate)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()

    def __enter__(self) -> TrainingLog:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        # A full disk ends the log as well: what ended the run is to be told.
        with suppress(OSError) if kind else nullcontext():
            self.close()


def crops_by_class(cache: AudioCache, recipe: Recipe, device: str) -> dict[str, Tensor]:
    """For each class the fullest of a few crops [1, samples], the same ones in every run."""
    found = {}
    samples = recipe.samples_for(EXAMPLE_COLUMNS)
    for label in cache.classes:
        only = {other: float(other == label) for other in cache.classes}
        drawn = CropSampler(cache, samples, 8, 0, gain_db=(-3.0, -3.0), class_weights=only).next()
        found[label] = drawn[drawn.square().mean(1).argmax()][None].to(device)
    return found


def picture(before: Tensor, after: Tensor, spec: MelSpec) -> npt.NDArray[np.uint8]:
    """Log-mel before over log-mel after, uint8 [height, width, 3], low frequencies below.

    From waves [samples], or from mels [mels, frames] that are normalised as `spec` says. White
    is the loudest point of both, black `RANGE_DB` below it.
    """
    from matplotlib import colormaps

    if before.ndim == 1:
        spec = MEL
        with use_backend("torch"):
            before, after = log_mel(before[None], MEL)[0], log_mel(after[None], MEL)[0]
    panels = [(mel.numpy() * spec.std + spec.mean) * (20 / np.log(10)) for mel in (before, after)]
    loudest = max(20 * np.log10(spec.floor) + RANGE_DB, *(float(panel.max()) for panel in panels))
    line = np.full((2, before.shape[1]), loudest)
    stacked = np.concatenate([panels[0][::-1], line, panels[1][::-1]])
    coloured = colormaps["magma"](np.clip((stacked - loudest) / RANGE_DB + 1, 0, 1), bytes=True)
    return np.ascontiguousarray(coloured[..., :3])


def _cut(lines: Path, step: int) -> None:
    """Leave out what stands behind a step, and a line that was never finished."""
    kept = []
    for line in lines.read_text(encoding="utf-8").splitlines(keepends=True):
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line)
        except ValueError:
            continue
    with replacing(lines) as temporary:
        temporary.write_text("".join(kept), encoding="utf-8")
