"""Convert audio to flat token sequences for a language model, and such sequences to audio.

    python tokens_for_lm.py encode clip1.flac clip2.mp3 --out tokens.npz
    python tokens_for_lm.py decode tokens.npz --out decoded/

The npz holds one sequence for each clip, mixed down to mono. A sequence has 12 tokens for each
column of 46 ms, from the lowest row to the highest, column by column. `Codec.decode_tokens` decodes
sequences that a model has generated.

    tokens        uint16 [all clips' tokens, one after the other]
    offsets       int64 [clips + 1]: clip i is tokens[offsets[i]:offsets[i + 1]]
    lengths       int64 [clips]: samples, at the clip's own rate
    sample_rates  int64 [clips]
    names         str [clips]
    tokenizer_id  str: the tokenizer of the tokens; all weights of this tokenizer decode them
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

import melcap
from melcap import audio


def encode(clips: list[Path], out: Path, codec: melcap.Codec) -> None:
    """Write the tokens of all clips to one file."""
    sequences, lengths, rates = [], [], []
    for clip in clips:
        wave, rate = audio.read(clip)  # float32 [channels, samples]
        codes = codec.encode(wave.mean(axis=0), rate)
        sequences.append(codes.flatten()[0].cpu().numpy().astype(np.uint16))
        lengths.append(wave.shape[1])
        rates.append(rate)
        print(f"{clip}: {wave.shape[1] / rate:.2f} s, {len(sequences[-1])} tokens")
    np.savez(
        out,
        tokens=np.concatenate(sequences),
        offsets=np.cumsum([0, *map(len, sequences)]),
        lengths=np.array(lengths),
        sample_rates=np.array(rates),
        names=np.array([clip.name for clip in clips]),
        tokenizer_id=np.array(codec.tokenizer_id),
    )
    print(
        f"{out}: vocabulary of {codec.vocab_size}, {codec.tokens_per_second:.1f} tokens/s, "
        f"{codec.bitrate / 1000:.2f} kbps"
    )


def decode(tokens_file: Path, out: Path, codec: melcap.Codec) -> None:
    """Write a wav file for each sequence of a file of tokens."""
    with np.load(tokens_file) as data:
        offsets, lengths, rates = data["offsets"], data["lengths"], data["sample_rates"]
        tokens, names = data["tokens"].astype(np.int32), data["names"]
        tokenizer_id = str(data["tokenizer_id"])
    out.mkdir(parents=True, exist_ok=True)
    for index, name in enumerate(names):
        codes = melcap.Codes.from_flat(
            [torch.from_numpy(tokens[offsets[index] : offsets[index + 1]])],
            codec.rows,
            [int(lengths[index])],
            int(rates[index]),
            tokenizer_id,
        )
        target = out / f"{index:04d}-{Path(str(name)).stem}.wav"
        audio.write(target, codec.decode(codes).cpu().numpy(), codes.sample_rate)
        print(target)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    to_tokens = commands.add_parser("encode", help="convert audio files to one .npz")
    to_tokens.add_argument("clips", type=Path, nargs="+")
    to_tokens.add_argument("--out", type=Path, default=Path("tokens.npz"))
    to_audio = commands.add_parser("decode", help="convert a .npz to a folder of wav files")
    to_audio.add_argument("tokens", type=Path)
    to_audio.add_argument("--out", type=Path, default=Path("decoded"))
    for command in (to_tokens, to_audio):
        command.add_argument(
            "--weights", type=Path, help="a weights file instead of the default one"
        )
        command.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ...")
    arguments = parser.parse_args()

    codec = melcap.load(arguments.weights, arguments.device)
    if arguments.command == "encode":
        encode(arguments.clips, arguments.out, codec)
    else:
        decode(arguments.tokens, arguments.out, codec)


if __name__ == "__main__":
    main()
