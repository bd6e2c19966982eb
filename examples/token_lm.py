"""Train a small language model on a folder of tokens, and say how predictable they are.

    melcap tokenize recordings/ --out tokens/
    melcap tokenize other-recordings/ --out unseen/
    python token_lm.py train tokens/ --unseen unseen/ --out lm/
    python token_lm.py measure lm/model.safetensors unseen/ --counts tokens/
    python token_lm.py continue lm/model.safetensors unseen/ --out continued/

`train` fits a `melcap.lm.ContextModel` for five minutes. It then prints the bits a token of unseen
clips, by class and by row, beside a unigram model, which knows how often each token occurs in each
row. A class is the name of the folder that a clip was in. `train` writes to OUT:

    checkpoint.pt        model and optimisers; the same command goes on from it
    model.safetensors    the model
    bits.md              the table

`continue` writes audio: the first seconds of unseen clips, continued by the model. Minutes of
training give texture, and no words or melodies.
"""

from __future__ import annotations

import argparse
import math
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset, load_dataset
from rich.console import Console
from rich.progress import Progress, track
from torch import Tensor

import melcap
from melcap import audio
from melcap.errors import InputError, MelcapError
from melcap.files import replacing
from melcap.lm import ContextModel

COLUMNS = 96
"""Columns of one training sequence: 4.5 s."""
BATCH = 8
RATES = (4e-3, 8e-3)
"""Learning rates of AdamW and Muon."""
WARM_UP = 50
DECAY = 0.6
"""Part of the training in which the rates fall to zero."""
SAVE_SECONDS = 60
CONSOLE = Console(stderr=True)


def open_tokens(folder: Path, codec: melcap.Codec) -> Dataset:
    """Return the clips of a token set in Parquet, all of the codec's tokenizer."""
    files = [str(file) for file in sorted(folder.rglob("*.parquet"))]
    if not files:
        raise InputError(f"{folder} holds no Parquet shards: make them with `melcap tokenize`")
    clips = load_dataset("parquet", data_files=files, split="train")
    for tokenizer_id in clips.unique("tokenizer_id"):
        codec.require_tokenizer(tokenizer_id, clips[0]["model"])
    return clips


def grids(clips: Dataset, rows: int) -> Iterator[tuple[str, Tensor]]:
    """Yield the source and the tokens, int64 [rows, columns], of every channel of every clip."""
    for clip in clips.select_columns(["source", "channels", "tokens"]).with_format("numpy"):
        tokens = torch.from_numpy(clip["tokens"].astype(np.int64))
        for channel in tokens.view(int(clip["channels"]), -1, rows):
            yield str(clip["source"]), channel.mT


def cut(clips: Dataset, rows: int) -> Dataset:
    """Return sequences of at most `COLUMNS` columns, cut from all channels of all clips."""
    longest = COLUMNS * rows

    def pieces(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        found: list[Any] = []
        for channels, tokens in zip(batch["channels"], batch["tokens"], strict=True):
            for channel in np.array(tokens, np.uint16).reshape(channels, -1):
                found += np.split(channel, range(longest, len(channel), longest))
        return {"tokens": found}

    clips = clips.select_columns(["channels", "tokens"])
    return clips.map(pieces, batched=True, batch_size=64, remove_columns=["channels"])


def batch_of(sequences: Dataset, rows: int, step: int) -> tuple[Tensor, Tensor]:
    """Return the tokens of a training step, and which of them are no padding.

    Both are [batch, rows, columns]. The order of an epoch depends on its number alone, so a run
    that is stopped goes on with the batches that it would have had.
    """
    steps = max(1, len(sequences) // BATCH)
    epoch, at = divmod(step, steps)
    order = torch.randperm(len(sequences), generator=torch.Generator().manual_seed(epoch))
    chosen = sequences[order[at * BATCH : (at + 1) * BATCH].tolist()]["tokens"]
    grids = [torch.from_numpy(each.astype(np.int64)).view(-1, rows) for each in chosen]
    tokens = torch.nn.utils.rnn.pad_sequence(grids, batch_first=True, padding_value=-1).mT
    return tokens.clamp(min=0), tokens >= 0


def optimisers_of(model: ContextModel) -> list[torch.optim.Optimizer]:
    """Return AdamW for vectors, tables and convolutions, and Muon for the other matrices."""
    tables = set(model.softmax.parameters())
    matrices = [each for each in model.parameters() if each.ndim == 2 and each not in tables]
    others = [each for each in model.parameters() if each.ndim != 2 or each in tables]
    return [
        torch.optim.AdamW(others, lr=RATES[0], betas=(0.9, 0.98), weight_decay=0.01),
        torch.optim.Muon(matrices, lr=RATES[1], weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
    ]


class Run:
    """A training run: a model, its optimisers, and how far it has come."""

    def __init__(self, model: ContextModel, path: Path) -> None:
        self.model, self.path = model, path
        self.optimisers = optimisers_of(model)
        self.step, self.seconds = 0, 0.0
        if path.exists():
            state = torch.load(path, map_location=model.vectors.device, weights_only=True)
            if state["tokenizer_id"] != model.tokenizer_id:
                raise InputError(
                    f"{path} is of tokenizer {state['tokenizer_id']}: name another OUT"
                )
            model.load_state_dict(state["model"])
            for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
                optimiser.load_state_dict(saved)
            self.step, self.seconds = state["step"], state["seconds"]

    def save(self) -> None:
        state = {
            "tokenizer_id": self.model.tokenizer_id,
            "model": self.model.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
            "step": self.step,
            "seconds": self.seconds,
        }
        with replacing(self.path) as temporary:
            torch.save(state, temporary)

    def train(self, sequences: Dataset, minutes: float, steps: int | None, bf16: bool) -> None:
        """Go on until the run has so many steps, or where None, minutes, in all its parts."""
        rows, device = self.model.config.rows, self.model.vectors.device.type
        sequences = sequences.with_format("numpy")
        smooth, saved, before = math.nan, time.monotonic(), time.monotonic()
        with Progress(*Progress.get_default_columns(), console=CONSOLE) as progress:
            task = progress.add_task("training", total=1.0)
            while True:
                done = self.step / steps if steps else self.seconds / (60 * minutes)
                progress.update(
                    task, completed=done, description=f"step {self.step}, {smooth:.2f} bits a token"
                )
                if done >= 1:
                    break
                for optimiser, rate in zip(self.optimisers, RATES, strict=True):
                    for group in optimiser.param_groups:
                        group["lr"] = rate * min((self.step + 1) / WARM_UP, (1 - done) / DECAY, 1)
                tokens, real = batch_of(sequences, rows, self.step)
                with torch.autocast(device, torch.bfloat16, enabled=bf16):
                    loss = self.model.bits(tokens)[real.to(device)].mean()
                self.model.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
                for optimiser in self.optimisers:
                    optimiser.step()
                bits = loss.item()
                smooth = bits if math.isnan(smooth) else 0.98 * smooth + 0.02 * bits
                self.step += 1
                now = time.monotonic()
                self.seconds, before = self.seconds + now - before, now
                if now - saved > SAVE_SECONDS:
                    self.save()
                    saved = before = time.monotonic()
        self.save()


def count(clips: Dataset, rows: int, size: int) -> Tensor:
    """Return how often each token occurs in each row, int64 [rows, codebook size]."""
    counts = torch.zeros(rows, size, dtype=torch.int64)
    for _, grid in track(grids(clips, rows), "counting", len(clips), console=CONSOLE):
        counts += torch.stack([torch.bincount(row, minlength=size) for row in grid])
    return counts


@torch.no_grad()
def measure(model: ContextModel, clips: Dataset, counts: Tensor) -> str:
    """Return a Markdown table of bits a token: a unigram model of `counts` beside the model."""
    rows, size = counts.shape
    # One is added to each count, so that no token is impossible.
    unigram = -((counts + 1) / (counts.sum(1, keepdim=True) + size)).double().log2()
    sums: dict[str, Tensor] = defaultdict(lambda: torch.zeros(3, rows, dtype=torch.float64))
    model.eval()
    for source, grid in track(grids(clips, rows), "unseen clips", len(clips), console=CONSOLE):
        bits = model.bits(grid[None])[0].cpu().double().sum(1)
        columns = torch.full((rows,), grid.shape[1], dtype=torch.float64)
        sums[Path(source).parent.name] += torch.stack(
            [columns, unigram.gather(1, grid).sum(1), bits]
        )
    every = torch.stack(list(sums.values())).sum(0)
    lines = [(f"class {kind}", sums[kind].sum(1)) for kind in sorted(sums)]
    lines += [(f"row {row}", every[:, row]) for row in range(rows)]
    table = "| | tokens | unigram | model |\n| --- | --- | --- | --- |\n"
    for name, (tokens, plain, bits) in [*lines, ("all", every.sum(1))]:
        table += f"| {name} | {tokens:.0f} | {plain / tokens:.2f} | {bits / tokens:.2f} |\n"
    return table


def train(arguments: argparse.Namespace) -> None:
    codec = melcap.load(arguments.weights)
    clips, unseen = (open_tokens(each, codec) for each in (arguments.tokens, arguments.unseen))
    torch.manual_seed(arguments.seed)
    model = ContextModel.of(codec).to(arguments.device)
    arguments.out.mkdir(parents=True, exist_ok=True)
    run = Run(model, arguments.out / "checkpoint.pt")
    bf16 = arguments.device != "cpu" if arguments.bf16 is None else arguments.bf16
    try:
        run.train(cut(clips, codec.rows), arguments.minutes, arguments.steps, bf16)
    except KeyboardInterrupt:
        run.save()
        raise SystemExit(
            f"stopped at step {run.step}; the same command goes on from there"
        ) from None
    model.save(arguments.out / "model.safetensors")
    table = measure(model, unseen, count(clips, codec.rows, codec.vocab_size))
    (arguments.out / "bits.md").write_text(table)
    print(f"{run.step} steps in {run.seconds / 60:.1f} minutes\n\n{table}", end="")


def measure_model(arguments: argparse.Namespace) -> None:
    codec = melcap.load(arguments.weights)
    model = ContextModel.load(arguments.model).to(arguments.device)
    codec.require_tokenizer(model.tokenizer_id, "unknown")
    counts = count(open_tokens(arguments.counts, codec), codec.rows, codec.vocab_size)
    print(measure(model, open_tokens(arguments.unseen, codec), counts), end="")


def continue_clips(arguments: argparse.Namespace) -> None:
    codec = melcap.load(arguments.weights, arguments.device)
    model = ContextModel.load(arguments.model).to(arguments.device)
    codec.require_tokenizer(model.tokenizer_id, "unknown")
    arguments.out.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator(arguments.device).manual_seed(arguments.seed)
    unseen = open_tokens(arguments.unseen, codec)
    unseen = unseen.shuffle(seed=arguments.seed).select(range(min(arguments.clips, len(unseen))))
    begin, more = (round(each * codec.frame_rate) for each in (arguments.begin, arguments.seconds))
    for number, (source, grid) in enumerate(grids(unseen, codec.rows)):
        tokens = model.generate(grid[None, :, :begin], more, arguments.temperature, generator)
        wave = codec.decode_tokens(tokens[0].mT.flatten())
        target = arguments.out / f"{number:02d}-{Path(source).stem}.wav"
        audio.write(target, wave[None].cpu().numpy(), codec.sample_rate)
        print(f"{target}: {arguments.begin:g} s of {source}, then the model")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    trains = commands.add_parser("train", help="fit a model, and measure it on unseen clips")
    trains.add_argument("tokens", type=Path, help="folder of Parquet shards to learn from")
    trains.add_argument("--unseen", type=Path, required=True, help="folder of other clips' tokens")
    trains.add_argument("--out", type=Path, default=Path("lm"))
    trains.add_argument("--minutes", type=float, default=5.0)
    trains.add_argument("--steps", type=int, help="instead of minutes, which differ by machine")
    trains.add_argument(
        "--bf16", action=argparse.BooleanOptionalAction, help="bfloat16; on a GPU unless said"
    )
    trains.add_argument("--seed", type=int, default=0, help="of the weights that it starts from")
    trains.set_defaults(run=train)
    measures = commands.add_parser("measure", help="bits a token under a model")
    measures.add_argument("model", type=Path, help="model.safetensors of a run")
    measures.add_argument("unseen", type=Path, help="folder of tokens")
    measures.add_argument("--counts", type=Path, required=True, help="tokens for the unigram model")
    measures.set_defaults(run=measure_model)
    continues = commands.add_parser("continue", help="audio of clips that the model continues")
    continues.add_argument("model", type=Path, help="model.safetensors of a run")
    continues.add_argument("unseen", type=Path, help="folder of tokens")
    continues.add_argument("--out", type=Path, default=Path("continued"))
    continues.add_argument("--clips", type=int, default=6)
    continues.add_argument("--begin", type=float, default=3.0, help="seconds of the clip itself")
    continues.add_argument("--seconds", type=float, default=6.0, help="seconds from the model")
    continues.add_argument("--temperature", type=float, default=0.9)
    continues.add_argument("--seed", type=int, default=0)
    continues.set_defaults(run=continue_clips)
    for command in (trains, measures, continues):
        command.add_argument("--weights", type=Path, help="instead of the built-in ones")
        command.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ...")
    arguments = parser.parse_args()
    try:
        arguments.run(arguments)
    except MelcapError as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
