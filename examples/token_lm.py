"""Train a small language model on a folder of tokens, and measure how predictable they are.

    melcap tokenize recordings/ --out tokens/
    melcap tokenize other-recordings/ --out unseen/
    python token_lm.py train tokens/ --unseen unseen/ --out lm/
    python token_lm.py measure lm/model.safetensors unseen/ --counts tokens/
    python token_lm.py continue lm/model.safetensors unseen/ --out continued/

`train` fits a `melcap.lm.ContextModel` for five minutes. It then prints the bits per token of
unseen clips, by class and by row, beside those of a unigram model, which counts how often each
token occurs in each row. A class is the name of the folder that a clip was in. `train` writes to
OUT:

    checkpoint.pt        model and optimisers; the same command resumes from it
    model.safetensors    the model
    bits.md              the table

`continue` writes audio: the first seconds of unseen clips, continued by the model. After minutes of
training the model generates texture, but no words or melodies.
"""

from __future__ import annotations

import argparse
import glob
import math
import signal
import time
from collections import defaultdict
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress, track
from torch import Tensor

import melcap
from melcap import audio
from melcap.errors import InputError, MelcapError
from melcap.io.files import replacing
from melcap.lm import ContextModel

try:
    from datasets import Dataset, load_dataset
except ImportError as error:
    raise SystemExit(
        "error: this example reads tokens with datasets: pip install datasets"
    ) from error

COLUMNS = 96
"""The most columns of a training sequence, 4.5 s."""
BATCH = 8
RATES = (4e-3, 8e-3)
"""The learning rates of AdamW and Muon."""
WARM_UP = 50
DECAY = 0.6
"""The last fraction of the run, over which the learning rates fall to zero."""
SAVE_SECONDS = 60
CONSOLE = Console(stderr=True)


def open_tokens(folder: Path, codec: melcap.Codec) -> Dataset:
    """Return the clips of a token set in Parquet, all of the codec's tokenizer."""
    files = [each for each in sorted(folder.rglob("*.parquet")) if not each.name.startswith(".")]
    if not files:
        raise InputError(
            f"{folder} holds no Parquet shards: make them with `melcap tokenize`, whose format is "
            "Parquet unless --format names another"
        )
    names = [glob.escape(str(each)) for each in files]
    clips = load_dataset("parquet", data_files=names, split="train")
    made = clips.select_columns(["tokenizer_id", "model"]).to_pandas().drop_duplicates()
    for tokenizer_id, model in made.itertuples(index=False):
        codec.require_tokenizer(tokenizer_id, model)
    return clips


def load_model(path: Path, codec: melcap.Codec, device: str) -> ContextModel:
    """Return a model that `train` wrote for the codec's tokenizer."""
    model = ContextModel.load(path)
    if model.tokenizer_id != codec.tokenizer_id:
        raise InputError(
            f"{path} is a model of tokenizer {model.tokenizer_id}, and {codec.model} has tokenizer "
            f"{codec.tokenizer_id}: name the weights with --weights"
        )
    return model.to(device)


def grids(clips: Dataset, rows: int) -> Iterator[tuple[str, Tensor]]:
    """Yield the source and the tokens, int64 [rows, columns], of every channel of every clip."""
    for clip in clips.select_columns(["source", "channels", "tokens"]).with_format("numpy"):
        tokens = torch.from_numpy(clip["tokens"].astype(np.int64))
        for channel in tokens.view(int(clip["channels"]), -1, rows):
            yield str(clip["source"]), channel.mT


def cut(clips: Dataset, rows: int) -> Dataset:
    """Return sequences of at most `COLUMNS` columns, cut from all channels of all clips."""
    longest = COLUMNS * rows

    def pieces(batch: dict[str, Any]) -> dict[str, list[Any]]:
        found: list[Any] = []
        for channels, tokens in zip(batch["channels"], batch["tokens"], strict=True):
            for channel in tokens.reshape(channels, -1):
                found += np.split(channel, range(longest, len(channel), longest))
        return {"tokens": found}

    clips = clips.select_columns(["channels", "tokens"]).with_format("numpy")
    return clips.map(pieces, batched=True, batch_size=8, remove_columns=["channels"])


@lru_cache(maxsize=1)
def order_of(epoch: int, count: int) -> Tensor:
    """Return the order of an epoch, which depends on its number alone, so that runs can resume."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(epoch))


def batch_of(sequences: Dataset, rows: int, step: int) -> tuple[Tensor, Tensor]:
    """Return the tokens of a training step and a mask of those that are not padding.

    Both are [batch, rows, columns].
    """
    epoch, at = divmod(step, max(1, len(sequences) // BATCH))
    chosen = order_of(epoch, len(sequences))[at * BATCH : (at + 1) * BATCH]
    tokens = sequences[chosen.tolist()]["tokens"]
    grids = [torch.from_numpy(each.astype(np.int64)).view(-1, rows) for each in tokens]
    padded = torch.nn.utils.rnn.pad_sequence(grids, batch_first=True, padding_value=-1).mT
    return padded.clamp(min=0), padded >= 0


def optimisers_of(model: ContextModel) -> list[torch.optim.Optimizer]:
    """Return AdamW for biases, norms, convolutions and the softmax, and Muon for the matrices."""
    softmax = set(model.softmax.parameters())
    matrices = [each for each in model.parameters() if each.ndim == 2 and each not in softmax]
    others = [each for each in model.parameters() if each.ndim != 2 or each in softmax]
    return [
        torch.optim.AdamW(others, lr=RATES[0], betas=(0.9, 0.98), weight_decay=0.01),
        torch.optim.Muon(matrices, lr=RATES[1], weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
    ]


class Run:
    """A training run: a model, its optimisers, its settings, and the step it has reached."""

    def __init__(self, model: ContextModel, settings: dict[str, Any], path: Path) -> None:
        self.model, self.settings, self.path = model, settings, path
        self.optimisers = optimisers_of(model)
        self.step, self.seconds, self.stopped = 0, 0.0, False
        if path.exists():
            self.resume()

    def resume(self) -> None:
        """Continue from the checkpoint, unless it was begun with other settings."""
        try:
            state = torch.load(self.path, map_location=self.device, weights_only=True)
            settings = state["settings"]
        except Exception as error:  # torch raises many kinds of errors for a damaged file
            raise InputError(f"{self.path} is not a checkpoint of this example: {error}") from error
        if settings != self.settings:
            raise InputError(
                f"{self.path} was begun with {settings}, not {self.settings}: choose another --out"
            )
        self.model.load_state_dict(state["model"])
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        self.step, self.seconds = state["step"], state["seconds"]

    def save(self) -> None:
        """Replace the checkpoint."""
        state = {
            "settings": self.settings,
            "model": self.model.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
            "step": self.step,
            "seconds": self.seconds,
        }
        with replacing(self.path) as temporary:
            torch.save(state, temporary)

    @property
    def device(self) -> torch.device:
        """Return the device that the model is on."""
        return self.model.vectors.device

    @property
    def done(self) -> float:
        """Return the fraction of the run that is done; time counts over all its sessions."""
        if self.settings["steps"] is not None:
            return self.step / self.settings["steps"]
        return self.seconds / (60 * self.settings["minutes"])

    def stop(self, *_: object) -> None:
        """Handle Ctrl-C: stop after this step. A second Ctrl-C stops at once."""
        self.stopped = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def train(self, sequences: Dataset) -> None:
        """Train until the run is done or `stop` was called, and save the checkpoint."""
        saved = before = time.monotonic()
        bits = smooth = math.nan
        with Progress(*Progress.get_default_columns(), console=CONSOLE) as progress:
            task = progress.add_task("training", total=1.0)
            while self.done < 1 and not self.stopped:
                bits = self.advance(sequences)
                smooth = bits if math.isnan(smooth) else 0.98 * smooth + 0.02 * bits
                now = time.monotonic()
                self.seconds, before = self.seconds + now - before, now
                said = f"step {self.step}, {smooth:.2f} bits per token"
                progress.update(task, completed=self.done, description=said)
                if now - saved > SAVE_SECONDS:
                    self.save()
                    saved = before = time.monotonic()
        self.save()

    def advance(self, sequences: Dataset) -> float:
        """Take a training step, and return its bits per token."""
        for optimiser, rate in zip(self.optimisers, RATES, strict=True):
            for group in optimiser.param_groups:
                group["lr"] = rate * min((self.step + 1) / WARM_UP, (1 - self.done) / DECAY, 1)
        tokens, real = batch_of(sequences, self.model.config.rows, self.step)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings["bf16"]):
            loss = self.model.bits(tokens)[real.to(self.device)].mean()
        if not loss.isfinite():
            raise MelcapError(
                f"the loss is {loss.item()} at step {self.step}: choose another --seed"
            )
        self.model.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimiser in self.optimisers:
            optimiser.step()
        self.step += 1
        return loss.item()


def tracked_grids(clips: Dataset, rows: int, title: str) -> Iterator[tuple[str, Tensor]]:
    """Yield what `grids` yields, with a progress bar."""
    channels = sum(clips.select_columns(["channels"])["channels"])
    yield from track(grids(clips, rows), title, channels, console=CONSOLE)


def count(clips: Dataset, rows: int, size: int) -> Tensor:
    """Return how often each token occurs in each row, int64 [rows, codebook size]."""
    counts = torch.zeros(rows, size, dtype=torch.int64)
    for _, grid in tracked_grids(clips, rows, "counting"):
        counts += torch.stack([torch.bincount(row, minlength=size) for row in grid])
    return counts


def measure(model: ContextModel, clips: Dataset, counts: Tensor) -> str:
    """Return a Markdown table of bits per token: the unigram model of `counts` beside the model."""
    rows, size = counts.shape
    # One is added to each count, so that no token is impossible.
    unigram = -((counts + 1) / (counts.sum(1, keepdim=True) + size)).double().log2()
    sums: dict[str, Tensor] = defaultdict(lambda: torch.zeros(3, rows, dtype=torch.float64))
    model.eval()
    for source, grid in tracked_grids(clips, rows, "unseen clips"):
        bits = model.bits_of_clip(grid).double().sum(1)
        columns = torch.full((rows,), grid.shape[1], dtype=torch.float64)
        plain = unigram.gather(1, grid).sum(1)
        sums[Path(source).parent.name] += torch.stack([columns, plain, bits])
    overall = torch.stack(list(sums.values())).sum(0)
    lines = [(f"class {kind}", sums[kind].sum(1)) for kind in sorted(sums)]
    lines += [(f"row {row}", overall[:, row]) for row in range(rows)]
    table = "| | tokens | unigram | model |\n| --- | --- | --- | --- |\n"
    for name, (tokens, plain, bits) in [*lines, ("all", overall.sum(1))]:
        table += f"| {name} | {tokens:.0f} | {plain / tokens:.2f} | {bits / tokens:.2f} |\n"
    return table


def train(arguments: argparse.Namespace) -> None:
    """Run the command `train`."""
    codec = melcap.load(arguments.weights)
    clips, unseen = (open_tokens(each, codec) for each in (arguments.tokens, arguments.unseen))
    sequences = cut(clips, codec.rows).with_format("numpy")
    settings = {
        "minutes": None if arguments.steps else arguments.minutes,
        "steps": arguments.steps,
        "seed": arguments.seed,
        "bf16": arguments.device != "cpu" if arguments.bf16 is None else arguments.bf16,
        "sequences": len(sequences),
        "tokenizer_id": codec.tokenizer_id,
    }
    torch.manual_seed(arguments.seed)
    model = ContextModel.of(codec).to(arguments.device)
    arguments.out.mkdir(parents=True, exist_ok=True)
    run = Run(model, settings, arguments.out / "checkpoint.pt")
    signal.signal(signal.SIGINT, run.stop)
    run.train(sequences)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if run.stopped:
        raise SystemExit(f"stopped at step {run.step}; the same command resumes from there")
    model.training_settings = settings | {"steps": run.step}
    model.save(arguments.out / "model.safetensors")
    table = measure(model, unseen, count(clips, codec.rows, codec.vocab_size))
    (arguments.out / "bits.md").write_text(table)
    print(f"{run.step} steps in {run.seconds / 60:.1f} minutes\n\n{table}", end="")


def measure_model(arguments: argparse.Namespace) -> None:
    """Run the command `measure`."""
    codec = melcap.load(arguments.weights)
    model = load_model(arguments.model, codec, arguments.device)
    counts = count(open_tokens(arguments.counts, codec), codec.rows, codec.vocab_size)
    print(measure(model, open_tokens(arguments.unseen, codec), counts), end="")


def continue_clips(arguments: argparse.Namespace) -> None:
    """Run the command `continue`."""
    codec = melcap.load(arguments.weights, arguments.device)
    model = load_model(arguments.model, codec, arguments.device)
    arguments.out.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator(arguments.device).manual_seed(arguments.seed)
    unseen = open_tokens(arguments.unseen, codec)
    unseen = unseen.shuffle(seed=arguments.seed).select(range(min(arguments.clips, len(unseen))))
    begin, more = (round(each * codec.frame_rate) for each in (arguments.begin, arguments.seconds))
    for number, (source, grid) in enumerate(grids(unseen, codec.rows)):
        begun = grid[None, :, :begin]
        tokens = model.generate(begun, more, arguments.temperature, generator)
        wave = codec.decode_tokens(tokens[0].mT.flatten())
        target = arguments.out / f"{number:02d}-{Path(source).stem}.wav"
        audio.write(target, wave[None].cpu().numpy(), codec.sample_rate)
        seconds = begun.shape[2] / codec.frame_rate
        print(f"{target}: {seconds:.1f} s of {source}, then the model")


def positive(text: str) -> float:
    """Parse a number above 0."""
    number = float(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"must be above 0, not {text}")
    return number


def positive_int(text: str) -> int:
    """Parse a whole number from 1 up."""
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, not {text}")
    return int(text)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    trains = commands.add_parser("train", help="train a model, and measure it on unseen clips")
    trains.add_argument("tokens", type=Path, help="folder of Parquet shards to train on")
    trains.add_argument("--unseen", type=Path, required=True, help="folder of other clips' tokens")
    trains.add_argument("--out", type=Path, default=Path("lm"))
    trains.add_argument("--minutes", type=positive, default=5.0)
    trains.add_argument("--steps", type=positive_int, help="length in steps instead of minutes")
    trains.add_argument(
        "--bf16", action=argparse.BooleanOptionalAction, help="train in bfloat16; default: on a GPU"
    )
    trains.add_argument("--seed", type=int, default=0, help="seed of the initial weights")
    trains.set_defaults(run=train)
    measures = commands.add_parser("measure", help="measure the bits per token under a model")
    measures.add_argument("model", type=Path, help="model.safetensors of a run")
    measures.add_argument("unseen", type=Path, help="folder of tokens")
    measures.add_argument("--counts", type=Path, required=True, help="tokens for the unigram model")
    measures.set_defaults(run=measure_model)
    continues = commands.add_parser("continue", help="write clips that the model continues")
    continues.add_argument("model", type=Path, help="model.safetensors of a run")
    continues.add_argument("unseen", type=Path, help="folder of tokens")
    continues.add_argument("--out", type=Path, default=Path("continued"))
    continues.add_argument("--clips", type=positive_int, default=6, help="each channel is a file")
    continues.add_argument("--begin", type=positive, default=3.0, help="seconds of the clip itself")
    continues.add_argument("--seconds", type=positive, default=6.0, help="seconds from the model")
    continues.add_argument("--temperature", type=float, default=0.9)
    continues.add_argument("--seed", type=int, default=0)
    continues.set_defaults(run=continue_clips)
    for command in (trains, measures, continues):
        command.add_argument(
            "--weights", type=Path, help="a weights file instead of the default one"
        )
        command.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ...")
    arguments = parser.parse_args()
    try:
        torch.empty(0, device=arguments.device)
    except (RuntimeError, AssertionError) as error:
        parser.error(f"--device {arguments.device}: {str(error).splitlines()[0]}")
    try:
        arguments.run(arguments)
    except (MelcapError, OSError) as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
