"""Codes keep the axes of the audio, and are the same after a way through bytes and files."""

from __future__ import annotations

import json
import os
import struct
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import melcap
from melcap import Codes, audio
from melcap.codec import Codec
from melcap.errors import ContainerError, InputError
from melcap.io import container
from tests.helpers import ID, count_ties, examples, noise

UNIT = 1024
CLOSE = 1e-4


def same(one: Codes, other: Codes) -> bool:
    fields = ("columns", "lengths", "sample_rate", "tokenizer_id", "model")
    return torch.equal(one.tokens, other.tokens) and all(
        getattr(one, field) == getattr(other, field) for field in fields
    )


@st.composite
def any_codes(draw: st.DrawFn) -> Codes:
    axes = draw(st.lists(st.integers(1, 3), max_size=3))
    clips = int(np.prod(axes, dtype=int))
    longest = draw(st.integers(1, 6))
    equal = draw(st.booleans())
    count = st.just(longest) if equal else st.integers(1, longest)
    length = st.just(draw(st.integers(1, 10**6))) if equal else st.integers(1, 10**6)
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    tokens = torch.randint(
        2 ** draw(st.integers(0, 16)),
        (*axes, draw(st.integers(1, 4)), longest),
        generator=generator,
    )
    return Codes(
        tokens.to(draw(st.sampled_from([torch.int32, torch.int64]))),
        tuple(draw(count) for _ in range(clips)),
        tuple(draw(length) for _ in range(clips)),
        draw(st.integers(1000, 768_000)),
        ID,
        draw(st.sampled_from(["unknown", "melcap-lite-0123456789abcdef", "é", "x" * 100])),
    )


class TestAxes:
    @settings(max_examples=examples(15))
    @given(
        axes=st.lists(st.integers(1, 3), max_size=3),
        samples=st.integers(1, 3 * UNIT),
        rate=st.sampled_from([44100, 16000]),
        data=st.data(),
    )
    def test_they_are_those_of_the_audio(
        self, codec: Codec, axes: list[int], samples: int, rate: int, data: st.DataObject
    ) -> None:
        wave = noise(*axes, samples)
        shape = data.draw(st.sampled_from([tuple(axes), tuple(axes[:1])]))
        lengths = torch.tensor(
            [data.draw(st.integers(1, samples)) for _ in range(int(np.prod(shape, dtype=int)))]
        ).view(shape)
        codes = codec.encode(wave, rate, lengths)
        decoded = codec.decode(codes)
        each = (
            lengths.view([*shape, *[1] * (len(axes) - len(shape))]).expand(axes).flatten().tolist()
        )
        assert codes.shape == tuple(axes)
        assert codes.lengths == tuple(each)
        assert codes.tokens.shape == (*axes, codec.rows, max(codes.columns))
        assert decoded.shape == (*axes, max(each))
        for clip, grid, made, columns, length in zip(
            wave.view(-1, samples),
            codes.tokens.view(-1, *codes.tokens.shape[-2:]),
            decoded.view(-1, max(each)),
            codes.columns,
            codes.lengths,
            strict=True,
        ):
            alone = codec.encode(clip[:length], rate)
            if rate == 44100:
                count_ties(codec, clip[:length], alone.tokens, grid[:, :columns])
            again = codec.decode(replace(alone, tokens=grid[:, :columns]))
            torch.testing.assert_close(made[:length], again, atol=CLOSE, rtol=0)
            assert not made[length:].any()

    def test_an_index_takes_the_first_away(self, codec: Codec) -> None:
        wave = noise(3, 2, 4 * UNIT)
        codes = codec.encode(wave, 44100, [4 * UNIT, 5, 2 * UNIT])
        assert [each.shape for each in codes] == [(2,), (2,), (2,)]
        assert codes[1].tokens.shape == (2, codec.rows, 1)
        assert codes[1].lengths == (5, 5)
        assert codes[2][1].tokens.shape == (codec.rows, 2)
        decoded = codec.decode(codes)
        torch.testing.assert_close(
            codec.decode(codes[2][1]), decoded[2, 1, : 2 * UNIT], atol=CLOSE, rtol=0
        )

    def test_a_round_trip_in_one_call(self, codec: Codec) -> None:
        wave = noise(2, 1, 3000)
        expected = codec.decode(codec.encode(wave, 16000, [2000, 3000]))
        assert torch.equal(codec(wave, 16000, [2000, 3000]), expected)

    def test_flat_sequences_are_one_for_each_channel(self, codec: Codec) -> None:
        codes = codec.encode(noise(2, 2, 3000), 44100)
        flat = codes.flatten()
        assert len(flat) == 4
        assert torch.equal(flat[2], codes.tokens[1, 0].t().flatten())


def test_to_other_places(codec: Codec) -> None:
    codes = codec.encode(noise(2, 3000), 44100)
    assert same(codes.to("cpu"), codes)
    assert same(codes.cpu(), codes)
    array = codes.numpy()
    assert (type(array), array.dtype) == (np.ndarray, np.int32)
    assert (array == np.asarray(codes.tokens)).all()


@settings(max_examples=examples(150))
@given(any_codes())
def test_bytes_and_back(codes: Codes) -> None:
    data = codes.to_bytes()
    found = Codes.from_bytes(data)
    if data.startswith(b"MELCAP"):  # a clip: what lies after its columns is not kept
        codes = replace(codes, tokens=codes.tokens[..., : codes.columns[0]].int())
        assert len(codes.shape) <= 1
    else:
        assert found.tokens.dtype == codes.tokens.dtype
    assert same(found, codes)


@pytest.mark.parametrize("axes", [(), (1,), (2,), (2, 3)])
def test_files_and_back(codec: Codec, tmp_path: Path, axes: tuple[int, ...]) -> None:
    codes = codec.encode(noise(*axes, 3000), 16000)
    for suffix in (".melcap", ".safetensors") if len(axes) < 2 else (".safetensors",):
        path = tmp_path / f"x{suffix}"
        path.write_bytes(b"before")
        codes.save(path)
        assert os.listdir(tmp_path) == [path.name]
        assert same(Codes.load(str(path)), codes)
        assert path.read_bytes().startswith(b"MELCAP") == (suffix == ".melcap")
        path.unlink()


def test_a_file_of_the_command_line(codec: Codec, tmp_path: Path) -> None:
    """`encode_file`, `Codes.save` and `decode_file` share the format."""
    audio.write(tmp_path / "a.wav", noise(2, 5000).numpy(), 44100)
    melcap.encode_file(tmp_path / "a.wav", tmp_path / "a.melcap", codec)
    codes = Codes.load(tmp_path / "a.melcap")
    assert (codes.shape, codes.lengths, codes.model) == ((2,), (5000, 5000), codec.model)
    codes.save(tmp_path / "b.melcap")
    melcap.decode_file(tmp_path / "b.melcap", tmp_path / "b.wav", codec)
    found, _ = audio.read(tmp_path / "b.wav")
    assert np.abs(found - codec.decode(codes).numpy()).max() < 2**-15


def test_tokens_that_need_fewer_bits_than_the_codebook(codec: Codec, tmp_path: Path) -> None:
    codes = codec.codes_of(torch.arange(12).view(3, 4) % 8)
    codes.save(tmp_path / "few.melcap")
    assert container.read_header(tmp_path / "few.melcap").bits == 3
    melcap.decode_file(tmp_path / "few.melcap", codec=codec)
    found, _ = audio.read(tmp_path / "few.wav")
    assert np.abs(found[0] - codec.decode(codes).numpy()).max() < 2**-15 + CLOSE


def test_what_a_melcap_file_cannot_hold(codec: Codec, tmp_path: Path) -> None:
    codes = codec.encode(noise(2, 3000), 44100)
    refused = [
        (codec.encode(noise(2, 2, 3000), 44100), "axes"),
        (codec.encode(noise(2, 3000), 44100, [3000, 2000]), "differ in length"),
        (codec.encode(noise(2, 3000), 44100, [3000, 2999]), "differ in length"),
        (codec.encode(noise(65, 100), 44100, [100] * 65), "channels is 65"),
        (replace(codes, tokens=codes.tokens - 1000), r"token -\d+ is below 0"),
        (replace(codes, tokens=codes.tokens + 2**16), "bits is 17"),
        (replace(codes, model="zwölf"), "model is 'zwölf'"),
    ]
    for each, words in refused:
        with pytest.raises(InputError, match=f"holds one clip, and .*{words}.*safetensors"):
            each.save(tmp_path / "x.melcap")
        each.save(tmp_path / "x.safetensors")
        assert same(Codes.load(tmp_path / "x.safetensors"), each)
        (tmp_path / "x.safetensors").unlink()
    for name in ("x", "x.wav", "x.pt"):
        with pytest.raises(InputError, match=rf"{name}: .* as \.melcap or \.safetensors"):
            codes.save(tmp_path / name)
    assert os.listdir(tmp_path) == []
    with pytest.raises(ContainerError, match="cannot be written: No such file"):
        codes.save(tmp_path / "missing" / "x.safetensors")


def packed(tensors: dict[str, Tensor], **metadata: str) -> bytes:
    from safetensors.torch import save

    return save(tensors, metadata or None)


def test_foreign_and_damaged_bytes(codec: Codec, tmp_path: Path) -> None:
    codes = codec.encode(noise(2, 2, 5000), 44100)
    data = codes.to_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])

    def edited(**changes: Any) -> bytes:
        made = json.dumps({**header, "__metadata__": {**header["__metadata__"], **changes}})
        return struct.pack("<Q", len(made)) + made.encode() + data[8 + size :]

    at = data.index(codes.tokens.numpy().tobytes()) + 5
    damaged = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
    weights = {"tokens": torch.zeros(2, 3, 4, dtype=torch.int32)}
    refused = {
        "nothing": (b"", "neither"),
        "text": (b"hello" * 10, "neither"),
        "cut": (data[:-1], "neither"),
        "another kind": (edited(kind="weights"), "it holds weights, version 1"),
        "a newer version": (edited(version="2"), "version 2"),
        "no metadata": (packed(weights), "neither"),
        "other metadata": (packed(weights, kind="melcap codes", version="1"), "neither"),
        "a changed token": (damaged, "damaged"),
        "no rate": (edited(sample_rate="fast"), "do not fit together"),
        "no such rate": (edited(sample_rate="5"), "do not fit together: .*rate"),
        "no id": (edited(tokenizer_id="lite"), "do not fit together: tokenizer_id"),
        "a cut .melcap": (codes[0].to_bytes()[:-2], "truncated"),
    }
    for name, (wrong, words) in refused.items():
        with pytest.raises(ContainerError, match=words) as caught:
            Codes.from_bytes(wrong)
        assert "\n" not in str(caught.value), name
        path = tmp_path / "x.safetensors"
        path.write_bytes(wrong)
        with pytest.raises(ContainerError, match=f"'{path}' cannot be read: .*{words}"):
            Codes.load(path)
    for path, words in ((tmp_path, "folder"), (tmp_path / "nowhere", "No such file")):
        with pytest.raises(ContainerError, match=words):
            Codes.load(path)


@settings(max_examples=examples(200), deadline=None)
@given(any_codes(), st.data())
def test_bytes_that_were_altered_are_refused_or_the_same(codes: Codes, data: st.DataObject) -> None:
    """Everything but the names in the metadata of a safetensors file is checked."""
    good = bytearray(codes.to_bytes())
    at = data.draw(st.integers(0, len(good) - 1))
    good[at] ^= data.draw(st.integers(1, 255))
    with suppress(ContainerError):
        found = Codes.from_bytes(bytes(good))
        assert torch.equal(found.tokens, codes.tokens)
        assert (found.columns, found.lengths) == (codes.columns, codes.lengths)


def test_a_single_clip_has_an_axis_of_channels_or_not(codec: Codec) -> None:
    for wave in (noise(3000), noise(1, 3000)):
        codes = codec.encode(wave, 44100)
        header, _ = container.unpack(codes.to_bytes())
        assert header.channel_axis == (wave.ndim == 2)
