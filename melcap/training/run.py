"""Train a codec: `python -m melcap.training.run --stage 1 --minutes 60 --data A.tar --out OUT`.

Three runs make a codec, each resumable at any moment by the same command:

    --stage 1                OUT/stage1.pt   encoder, codebook, mel decoder
    --stage 2 --from-mels    OUT/vocoder.pt  the vocoder on true mels
    --stage 2                OUT/stage2.pt   mel decoder and vocoder together, on tokens

The first two do not depend on each other. `python -m melcap.training.export OUT` ends it. With
`--weights FILE` a run starts from trained weights; `--weights default` are those that ship.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer

from melcap.codec import Codec
from melcap.config import CodecConfig
from melcap.errors import InputError, MelcapError
from melcap.pretrained import load
from melcap.training.crops import CropSampler
from melcap.training.data import AudioCache, build_cache
from melcap.training.loop import exported, train
from melcap.training.stage1 import Stage1
from melcap.training.stage2 import Stage2


def main(
    stage: Annotated[int, typer.Option(help="1: tokenizer; 2: vocoder", min=1, max=2)],
    data: Annotated[list[Path], typer.Option(help="tar shards, or folders CLASS/clip")],
    out: Annotated[Path, typer.Option(help="folder for checkpoints and logs")],
    minutes: Annotated[float, typer.Option(help="wall time of this run")],
    schedule_minutes: Annotated[
        float | None, typer.Option(help="time over which the learning rate falls, in all runs")
    ] = None,
    rate: Annotated[
        float | None, typer.Option(help="peak learning rate; the recipe's own if not given")
    ] = None,
    from_mels: Annotated[bool, typer.Option(help="stage 2 on true mels, not on tokens")] = False,
    discriminators: Annotated[
        int, typer.Option(help="stage 2: width of the discriminators; 0 trains without")
    ] = 0,
    judged: Annotated[
        int | None, typer.Option(help="stage 2: columns that discriminators hear; all by default")
    ] = None,
    columns: Annotated[int | None, typer.Option(help="supervised columns of a crop")] = None,
    batch: Annotated[int, typer.Option(help="crops in a batch")] = 8,
    weights: Annotated[
        str | None, typer.Option(help="weights file to start from, or 'default'")
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="decoded audio; OUT/audio if not given")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 ...")] = "cpu",
    bf16: Annotated[
        bool | None, typer.Option(help="networks in bfloat16; on a GPU unless switched off")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads")] = None,
    seed: Annotated[int, typer.Option(help="of weights and of the order of the data")] = 0,
) -> None:
    """Train one stage for a while; the same command goes on where it stopped."""
    if threads is not None:
        torch.set_num_threads(threads)
    torch.manual_seed(seed)
    if device.startswith("cuda"):
        torch.set_float32_matmul_precision("high")  # what is not in bfloat16 may round to TF32
    out.mkdir(parents=True, exist_ok=True)
    try:
        audio = AudioCache(build_cache(data, cache or out / "audio"))
        checkpoint = out / (
            "stage1.pt" if stage == 1 else "vocoder.pt" if from_mels else "stage2.pt"
        )
        trained = load(None if weights == "default" else weights) if weights else None
        recipe = _recipe(stage, out, from_mels, discriminators, judged, columns, batch, trained)
        if not checkpoint.exists() and trained is not None:
            recipe.start_from(trained)
        elif not checkpoint.exists() and isinstance(recipe, Stage2) and not from_mels:
            _start_vocoder(recipe, out / "vocoder.pt")
        if rate is not None:
            recipe.peak_rate = rate
        recipe.bf16 = device.startswith("cuda") if bf16 is None else bf16
        for module in recipe.modules().values():
            module.to(device)
        sampler = CropSampler(audio, recipe.samples, batch, seed)
        typer.echo(
            f"{audio.hours:.1f} hours of audio, classes {', '.join(audio.classes)}", err=True
        )
        train(recipe, sampler, checkpoint, minutes, schedule_minutes, device)
    except MelcapError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error


def _recipe(
    stage: int,
    out: Path,
    from_mels: bool,
    discriminators: int,
    judged: int | None,
    columns: int | None,
    batch: int,
    trained: Codec | None,
) -> Stage1 | Stage2:
    config = CodecConfig() if trained is None else trained.config
    if stage == 1:
        return Stage1(config, columns or 24, batch)
    tokenizer = None
    if trained is not None and not from_mels:
        vectors = {"codebook.vectors": trained.codebook.vectors}
        encoder, decoder = trained.encoder.state_dict(), trained.decoder.state_dict()
        tokenizer = {"encoder": encoder, "decoder": decoder, "learner": vectors}
    elif not from_mels:
        path = out / "stage1.pt"
        if not path.exists():
            raise InputError(f"{path}: not there; run --stage 1 first, or use --from-mels")
        tokenizer = exported(path)
    columns = columns or (10 if from_mels else 26)
    return Stage2(config, columns, batch, tokenizer, discriminators, judged)


def _start_vocoder(recipe: Stage2, path: Path) -> None:
    if path.exists():
        recipe.vocoder.load_state_dict(exported(path)["vocoder"])


if __name__ == "__main__":
    typer.run(main)
