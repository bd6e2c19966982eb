"""The log of a training run: lines of JSON, and TensorBoard beside them.

    OUT/stage2.jsonl              a line every `log_every` steps
    OUT/tensorboard/stage2/       the same as curves; pictures and audio of a few crops

A run that resumes appends to both. TensorBoard and matplotlib come with melcap[train]; without
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
from melcap.training.recipe import Recipe
from melcap.training.source import CropSource

EXAMPLE_COLUMNS = 64
"""Columns of the crops that are shown: 3 s of the lite codec."""
_PROGRESS = ("minutes", "rate", "audio_seconds_per_second")


class TrainingLog:
    """The log of a run.

    Lines after `step`, of a session that was stopped before it saved, are removed: the same steps
    come again.

    Args:
        checkpoint: the checkpoint folder of the run.
        step: the step of that checkpoint.
        tell: prints a sentence for the user.
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
            tell(f'TensorBoard is missing, the log is {self._lines}: pip install "melcap[train]"')
            return
        folder = checkpoint.parent / "tensorboard" / checkpoint.stem
        self._writer = board.SummaryWriter(str(folder), purge_step=step + 1, flush_secs=30)

    def row(self, row: Mapping[str, float]) -> None:
        """Append the figures of the steps up to row["step"]."""
        with self._lines.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        if self._writer is not None:
            for name in row.keys() - {"step"}:
                tag = f"{'progress' if name in _PROGRESS else 'figures'}/{name}"
                self._writer.add_scalar(tag, row[name], row["step"])

    def examples(self, recipe: Recipe, crops: Mapping[str, Tensor], step: int) -> None:
        """Add pictures and audio, before and after, of the crops of `crops_by_class`."""
        if self._writer is None:
            return
        for label, crop in crops.items():
            before, after = recipe.reconstruct(crop, EXAMPLE_COLUMNS)
            shown = picture(before[0].cpu(), after[0].float().cpu(), recipe.config.codec.mel)
            self._writer.add_image(f"{label}/before and after", shown, step, dataformats="HWC")
            if before.ndim == 2:
                for name, wave in (("before", before), ("after", after)):
                    audio = wave.clamp(-1, 1).cpu()
                    self._writer.add_audio(f"{label}/{name}", audio, step, MEL.sample_rate)

    def close(self) -> None:
        """Write what is buffered."""
        if self._writer is not None:
            self._writer.close()

    def __enter__(self) -> TrainingLog:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        # A full disk fails the log as well. The error that ended the run must not be hidden by it.
        with suppress(OSError) if kind else nullcontext():
            self.close()


def crops_by_class(source: CropSource, recipe: Recipe, device: str) -> dict[str, Tensor]:
    """Return the loudest of a few crops [1, samples] of each class, the same ones in every run."""
    drawn = source.examples(recipe.samples_for(EXAMPLE_COLUMNS), 8)
    return {
        label: crops[crops.square().mean(1).argmax()][None].to(device)
        for label, crops in drawn.items()
    }


def picture(before: Tensor, after: Tensor, spec: MelSpec) -> npt.NDArray[np.uint8]:
    """Return a picture of the log-mel before over the log-mel after, low frequencies below.

    Args:
        before: a wave [samples], or a mel [mels, frames] that is normalised as `spec` says.
        after: the same of the reconstruction.
        spec: the mel of both, if they are mels.

    Returns:
        uint8 [height, width, 3]. White is the loudest point of both, black `RANGE_DB` below it.
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
    """Remove the lines after a step, and a line that is incomplete."""
    kept = []
    for line in lines.read_text(encoding="utf-8").splitlines(keepends=True):
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line)
        except ValueError:
            continue
    with replacing(lines) as temporary:
        temporary.write_text("".join(kept), encoding="utf-8")
