"""Checkpoints to a weights file: `python -m melcap.training.export OUT weights.safetensors`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from melcap.codec import Codec
from melcap.config import CodecConfig
from melcap.pretrained import save
from melcap.training.loop import exported


def main(
    out: Annotated[Path, typer.Argument(help="folder of a training run, with stage2.pt")],
    target: Annotated[Path, typer.Argument(help="the weights file to write")],
) -> None:
    """Write the codec of a finished stage 2, and its hash beside it."""
    state = exported(out / "stage2.pt")
    codec = Codec(CodecConfig())
    for name in ("encoder", "codebook", "decoder", "vocoder"):
        codec.get_submodule(name).load_state_dict(state[name])
    digest = save(codec, target)
    target.with_suffix(".sha256").write_text(f"{digest}  {target.name}\n")
    typer.echo(f"{target}: {target.stat().st_size / 1e6:.1f} MB, sha256 {digest}")


if __name__ == "__main__":
    typer.run(main)
