"""Measure the levels of quality: how fast each decodes here, and how its sound scores.

    python profiling/quality.py VALID.tar

The speeds are measured in one run, in turns, on a clip of 10 s, with one thread and with two. A
row is the median of the rounds with the quartiles. Before that, every level must give the same
tokens, and decode as the configuration with so many Griffin-Lim steps does. The scores are those of
`melcap evaluate` on clips of VALID. Results go to profiling/results/quality.md and quality.json.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import torch
import typer
from clips import clip
from machine import provenance
from paths import RESULTS

import melcap
from melcap.bench.speed import Contender, Setting, in_turns
from melcap.codec import Codec
from melcap.errors import MelcapError
from melcap.evaluation.report import score
from melcap.io.files import replacing
from melcap.markdown import table
from melcap.model.quality import QUALITIES, griffin_lim_steps

SECONDS = 10.0
MEASURES = {
    "visqol": "ViSQOL",
    "stoi": "STOI",
    "pesq": "PESQ-WB",
    "lsd": "LSD",
    "mel_l1": "ln-mel L1",
    "over_smoothing": "over-smoothing",
}


def check(codecs: dict[str, Codec]) -> None:
    """Check the levels before anything is timed.

    Raises:
        MelcapError: a level gives other tokens, or other samples than so many Griffin-Lim steps.
    """
    default = codecs["default"]
    wave = clip(2.0, default.sample_rate)
    codes = default.encode(wave, default.sample_rate)
    for quality, codec in codecs.items():
        steps = griffin_lim_steps(default.config, quality)  # type: ignore[arg-type]
        vocoder = replace(default.config.vocoder, griffin_lim_steps=steps)
        plain = Codec(replace(default.config, vocoder=vocoder))
        plain.load_state_dict(codec.state_dict())
        if not torch.equal(codec.encode(wave, default.sample_rate).tokens, codes.tokens):
            raise MelcapError(f"not timed: {quality} gives other tokens")
        if not torch.equal(codec.decode(codes), plain.decode(codes)):
            raise MelcapError(
                f"not timed: {quality} does not give the samples of {steps} Griffin-Lim steps"
            )


def speeds(codecs: dict[str, Codec], rounds: int) -> list[dict[str, Any]]:
    """Return rows with the decoding speed of each level, with one thread and with two."""
    rate = codecs["default"].sample_rate
    contenders = {
        quality: Contender(
            quality, rate, "cpu", lambda wave, own=codec: own.encode(wave, rate), codec.decode
        )
        for quality, codec in codecs.items()
    }
    rows = []
    for threads in (2, 1):
        torch.set_num_threads(threads)
        found, _ = in_turns(contenders, Setting(SECONDS, 1, rounds, threads), clip)
        rows += [row for row in found if row["way"] == "decode"]
    return rows


def text(found: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    at = {(row["codec"], row["threads"]): row for row in found["speeds"]}
    scores = {row["codec"]: row for row in found["scores"] if row["class"] == "mean"}
    rows = []
    for quality in QUALITIES:
        cells = [quality, str(found["steps"][quality])]
        for threads in (2, 1):
            own, default = at[quality, threads], at["default", threads]
            ratio = own["x_real_time"] / default["x_real_time"]
            cells.append(f"{own['x_real_time']:.1f} ({ratio:.2f})")
        name = "melcap" if quality == "default" else f"melcap-{quality}"
        rows.append([*cells, *(f"{scores[name][measure]['mean']:.3f}" for measure in MEASURES)])
    heads = ["quality", "steps", "decoding, 2 threads", "1 thread", *MEASURES.values()]
    origin = ", ".join(f"{name} {value}" for name, value in found["origin"].items())
    return (
        f"# Levels of quality\n\nBy `python profiling/quality.py`: {origin}.\n\n"
        f"Decoding in times real time on a clip of {SECONDS:g} s, and in brackets over default: "
        f"the median of {found['rounds']} rounds in turns. Scores: the mean over classes of "
        f"{found['clips']} clips of {found['data']}; STOI and PESQ are of speech.\n\n"
        f"{table(heads, rows)}"
    )


def main(
    data: Annotated[Path, typer.Argument(help="Held-out clips: a folder, tar or CSV.")],
    rounds: Annotated[int, typer.Option(min=3, help="How often each is timed.")] = 15,
    clips_per_class: Annotated[int, typer.Option(help="Clips of each class, at most.", min=1)] = 8,
    out: Annotated[Path, typer.Option(help="The folder for the results.")] = RESULTS,
) -> None:
    """Check, time and score the levels of quality."""
    codecs = {quality: melcap.load(quality=quality) for quality in QUALITIES}
    check(codecs)
    steps = {quality: griffin_lim_steps(codec.config, quality) for quality, codec in codecs.items()}
    found: dict[str, Any] = {
        "origin": provenance("cpu"),
        "steps": steps,
        "rounds": rounds,
        "speeds": speeds(codecs, rounds),
    }
    with TemporaryDirectory() as folder:
        names = ["melcap", "melcap-fast", "melcap-best"]
        summary = score(data, names, Path(folder), clips_per_class=clips_per_class)
    if summary["failures"]:
        raise MelcapError(f"not scored: {summary['failures'][0]}")
    lines = summary["table"]
    clips = sum(
        line["n"] for line in lines if line["codec"] == "melcap" and line["class"] != "mean"
    )
    found |= {"data": data.name, "clips": clips, "scores": lines}
    out.mkdir(parents=True, exist_ok=True)
    for name, content in (
        ("quality.json", json.dumps(found, indent=1) + "\n"),
        ("quality.md", text(found)),
    ):
        with replacing(out / name) as temporary:
            temporary.write_text(content, encoding="utf-8")
    typer.echo(text(found))


if __name__ == "__main__":
    typer.run(main)
