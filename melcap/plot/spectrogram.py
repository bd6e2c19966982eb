"""A picture of a coded clip: its log-mel before and after, and its tokens."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from melcap.config import MelSpec
from melcap.errors import InputError, MelcapError
from melcap.io.files import replacing
from melcap.io.resample import resample
from melcap.ops import log_mel, use_backend
from melcap.plot.figures import new_figure

Wave = npt.NDArray[np.float32]
Tokens = npt.NDArray[np.integer[Any]]

MEL = MelSpec(sample_rate=44100, n_fft=2048, hop=256, n_mels=128, floor=1e-5, mean=0.0, std=1.0)
"""The log-mel of the picture, finer than the codec's own, so that losses are visible."""

RANGE_DB = 80
TICKS_HZ = (100, 500, 1000, 2000, 4000, 8000, 16000)


def write_picture(
    path: str | os.PathLike[str],
    before: Wave | None,
    after: Wave,
    tokens: Tokens,
    sample_rate: int,
    title: str,
    *,
    codebook_size: int = 8192,
    column_seconds: float = 2048 / 44100,
    start: float = 0,
) -> None:
    """Write a PNG of a clip: its log-mel, the log-mel after decoding, and its token grid.

    Args:
        path: a name that ends in .png; an existing file is replaced.
        before: float32 [samples], the original; None leaves out its panel.
        after: float32 [samples], the decoded audio, about as long as `before`.
        tokens: integers [rows, columns], row 0 the lowest band.
        sample_rate: of `before` and `after`, in Hz.
        title: text above the panels.
        codebook_size: number of tokens, for the colour scale.
        column_seconds: time that a column of tokens stands for.
        start: the time at which the clip begins, in seconds.

    Raises:
        InputError: for another file name, or an array of another shape.
        MelcapError: where matplotlib is not installed, or the file cannot be written.
    """
    target = Path(path)
    if target.suffix.lower() != ".png":
        raise InputError(f"{target}: the name of a picture must end in .png")
    if tokens.ndim != 2 or not tokens.size:
        raise InputError(f"tokens must be [rows, columns], not {list(tokens.shape)}")
    waves = {"original": before, "decoded": after}
    mels = {name: _decibels(wave, sample_rate) for name, wave in waves.items() if wave is not None}

    figure = new_figure(11, 2.7 * len(mels) + 2.3)
    figure.suptitle(title, fontsize=13, fontweight="bold")
    heights = [*[3.0] * len(mels), 2.0]
    axes = list(figure.subplots(len(heights), 1, sharex=True, height_ratios=heights))
    _show_mels(figure, axes[:-1], mels, start)
    _show_tokens(figure, axes[-1], tokens, codebook_size, (start, column_seconds))
    axes[-1].set_xlim(start, start + len(after) / sample_rate)
    for panel in axes:
        panel.tick_params(labelsize=8)

    try:
        with replacing(target) as temporary:
            figure.savefig(temporary)
    except OSError as error:
        raise MelcapError(f"{target}: cannot be written: {error.strerror}") from error


def _show_mels(
    figure: Any, panels: list[Any], mels: dict[str, npt.NDArray[np.float32]], start: float
) -> None:
    # Both panels share one scale, down from the loudest point. Silence alone is black.
    quietest = 20 * np.log10(MEL.floor)
    loudest = max(quietest + RANGE_DB, *(float(mel.max()) for mel in mels.values()))
    for panel, (name, mel) in zip(panels, mels.items(), strict=True):
        image = panel.imshow(
            mel - loudest,
            origin="lower",
            aspect="auto",
            interpolation="nearest",
            cmap="magma",
            vmin=-RANGE_DB,
            vmax=0,
            extent=(start, start + mel.shape[1] * MEL.hop / MEL.sample_rate, 0, MEL.n_mels),
        )
        panel.set_title(name, loc="left", fontsize=10)
        panel.set_ylabel("Hz")
        panel.set_yticks([_mel_row(hz) for hz in TICKS_HZ], [_short(hz) for hz in TICKS_HZ])
    bar = figure.colorbar(image, ax=panels, pad=0.01, aspect=12 * len(panels))
    bar.set_label("dB, 0 is the loudest point")


def _show_tokens(
    figure: Any, panel: Any, tokens: Tokens, codebook_size: int, times: tuple[float, float]
) -> None:
    rows, columns = tokens.shape
    start, column_seconds = times
    image = panel.imshow(
        tokens,
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        cmap="viridis",
        vmin=0,
        vmax=codebook_size - 1,
        extent=(start, start + columns * column_seconds, 0, rows),
    )
    panel.set_title(f"tokens: {rows} rows x {columns} columns", loc="left", fontsize=10)
    panel.set_xlabel("seconds")
    panel.set_ylabel("row")
    marked = [row for row in range(1, rows + 1) if row == 1 or row % 4 == 0]
    panel.set_yticks([row - 0.5 for row in marked], [str(row) for row in marked])
    figure.colorbar(image, ax=panel, pad=0.01, aspect=8).set_label("token")


def _decibels(wave: Wave, sample_rate: int) -> npt.NDArray[np.float32]:
    """Return the log-mel of samples [samples], [mel bins, frames] in dB of magnitude."""
    if wave.ndim != 1 or not wave.size:
        raise InputError(f"a wave must be [samples] and not empty, not {list(wave.shape)}")
    samples = resample(wave.astype(np.float32)[None], sample_rate, MEL.sample_rate)
    with use_backend("torch"):  # on the CPU, whatever the codec runs on
        mel = log_mel(torch.from_numpy(samples), MEL)[0].numpy()
    return np.asarray(mel * (20 / np.log(10)), dtype=np.float32)


def _mel_row(hz: float) -> float:
    """Return where a frequency is on the axis of mel bins (HTK; bin i is centred at i + 0.5)."""
    top = np.log10(1 + MEL.sample_rate / 2 / 700)
    return float(np.log10(1 + hz / 700) / top * (MEL.n_mels + 1) - 0.5)


def _short(hz: int) -> str:
    return f"{hz // 1000}k" if hz >= 1000 else str(hz)
