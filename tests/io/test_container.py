"""The .melcap container: what goes in comes out, and nothing else is let in."""

from __future__ import annotations

import os
import struct
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melcap.errors import ContainerError, InputError
from melcap.io import container
from melcap.io.container import BOUNDS, MAX_TOKENS, Header
from melcap.io.container import bits as bit_packing
from melcap.io.container import file as container_file
from melcap.io.container.bits import pack_bits, unpack_bits

relaxed = settings(deadline=None)  # the first call may wait for the disk
LITTLE = 512 * 1024  # bytes that a refusal may allocate; Python's own file buffers are most of it
ID = "00ff01234a0b0c0d"
HEADER = Header("melcap-lite-0123456789abcdef", ID, 44100, 2, 5000, 3, 4, 13)
TOKENS = np.arange(24, dtype=np.int64).reshape(2, 3, 4) * 300 % 8192


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for the module: hypothesis will have no fixture that is made anew per test."""
    return tmp_path_factory.mktemp("container")


@pytest.fixture(scope="module")
def valid(folder: Path) -> bytes:
    path = folder / "valid.melcap"
    container.write(path, HEADER, TOKENS)
    return path.read_bytes()


@contextmanager
def allocating_little() -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < LITTLE, f"{peak} bytes allocated"


def refusal(path: Path, data: bytes, call: Callable[[Path], Any] = container.read) -> str:
    """The one sentence with which `data`, as a file, is refused."""
    path.write_bytes(data)
    with pytest.raises(ContainerError) as caught:
        call(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message.removeprefix(f"'{path}' cannot be read: ")


def forged(
    payload: bytes = b"",
    *,
    name: bytes = b"melcap-lite",
    tokenizer: bytes = b"8 bytes.",
    rate: int = 44100,
    channels: int = 1,
    samples: int = 2048,
    rows: int = 12,
    columns: int = 1,
    bits: int = 13,
    coding: int = 0,
    axis: int = 1,
) -> bytes:
    """A file with correct checksums, whatever its fields say."""
    head = struct.pack(
        "<6sBB8sIHQHIBBB",
        b"MELCAP",
        2,
        len(name),
        tokenizer,
        rate,
        channels,
        samples,
        rows,
        columns,
        bits,
        coding,
        axis,
    )
    crc = struct.Struct("<I").pack
    head += name
    return head + crc(zlib.crc32(head)) + payload + crc(zlib.crc32(payload))


# --- bits


def packed_by_hand(tokens: npt.NDArray[Any], bits: int) -> bytes:
    text = "".join(f"{int(token):0{bits}b}" for token in tokens)
    text += "0" * (-len(text) % 8)
    return bytes(int(text[i : i + 8], 2) for i in range(0, len(text), 8))


@relaxed
@given(st.integers(1, 16), st.data())
def test_packing_is_the_plain_bit_string(bits: int, data: st.DataObject) -> None:
    values = data.draw(st.lists(st.integers(0, 2**bits - 1), max_size=40))
    dtype = data.draw(st.sampled_from(["int32", "int64", "uint16", "uint64", ">i4"]))
    tokens = np.array(values, dtype)
    packed = pack_bits(tokens, bits)
    assert packed == packed_by_hand(tokens, bits)
    unpacked = unpack_bits(packed, bits, len(values))
    assert unpacked.dtype == np.int32
    assert unpacked.tolist() == values


@pytest.mark.parametrize("bits", [1, 7, 13, 16])
def test_packing_in_blocks_is_packing_at_once(bits: int) -> None:
    tokens = np.random.default_rng(bits).integers(0, 2**bits, 2 * bit_packing._BLOCK + 11)
    packed = pack_bits(tokens, bits)
    assert packed == packed_by_hand(tokens, bits)
    np.testing.assert_array_equal(unpack_bits(packed, bits, len(tokens)), tokens)


def test_packing_takes_strided_tokens() -> None:
    tokens = np.arange(90)[::-3]
    assert unpack_bits(pack_bits(tokens, 7), 7, 30).tolist() == tokens.tolist()


@pytest.mark.parametrize("token", [-1, 8192, 2**16, 2**40, -(2**40)])
def test_a_token_out_of_range_is_refused(token: int) -> None:
    with pytest.raises(InputError, match=f"token {token} does not fit 13 bits"):
        pack_bits(np.array([5, token, 6]), 13)


@pytest.mark.parametrize("tokens", [np.zeros((2, 2), int), np.zeros(3), np.zeros(3, bool)])
def test_only_rows_of_integers_are_packed(tokens: npt.NDArray[Any]) -> None:
    with pytest.raises(InputError, match="1-D integer array"):
        pack_bits(tokens, 13)


@pytest.mark.parametrize("bits", [0, 17, -1, True, 8.0])
def test_impossible_token_sizes_are_refused(bits: Any) -> None:
    with pytest.raises(InputError, match="bits is"):
        pack_bits(np.zeros(3, int), bits)
    with pytest.raises(InputError, match="bits is"):
        unpack_bits(b"\0", bits, 1)


def test_data_of_another_length_is_not_unpacked() -> None:
    for data, bits, count in [(b"\0", 13, 1), (b"\0\0\0", 13, 1), (b"", 1, -1), (b"", 1, 1)]:
        with pytest.raises(ContainerError, match=f"cannot be {count} tokens of {bits} bits"):
            unpack_bits(data, bits, count)


def test_padding_bits_must_be_zero() -> None:
    assert unpack_bits(b"\xff\xf8", 13, 1).tolist() == [8191]
    for bit in range(3):
        with pytest.raises(ContainerError, match="unused bits"):
            unpack_bits(bytes([0xFF, 0xF8 | 1 << bit]), 13, 1)


# --- round trips


@st.composite
def contents(draw: st.DrawFn) -> tuple[Header, npt.NDArray[Any]]:
    shape = (draw(st.integers(1, 8)), draw(st.integers(1, 14)), draw(st.integers(1, 40)))
    bits = draw(st.integers(1, 16))
    seed = draw(st.integers(0, 2**32 - 1))
    header = Header(
        model=draw(
            st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=96)
        ),
        tokenizer_id=draw(st.binary(min_size=8, max_size=8)).hex(),
        sample_rate=draw(st.integers(*BOUNDS["sample_rate"])),
        channels=shape[0],
        samples=draw(st.integers(*BOUNDS["samples"])),
        rows=shape[1],
        columns=shape[2],
        bits=bits,
        channel_axis=shape[0] > 1 or draw(st.booleans()),
    )
    dtype = draw(st.sampled_from([np.int32, np.int64, np.uint16]))
    return header, np.random.default_rng(seed).integers(0, 2**bits, shape).astype(dtype)


@relaxed
@given(contents())
def test_what_is_written_is_read(folder: Path, given_contents: tuple[Header, Any]) -> None:
    header, tokens = given_contents
    path = folder / "round.melcap"
    size = container.write(path, header, tokens)
    assert path.stat().st_size == size == header.packed_bytes + len(header.model) + 47
    assert container.read_header(path) == header
    read_header, read_tokens = container.read(path)
    assert read_header == header
    assert read_tokens.dtype == np.int32
    assert read_tokens.flags["C_CONTIGUOUS"]
    np.testing.assert_array_equal(read_tokens, tokens)


def test_the_bytes_are_those_of_the_documented_layout(valid: bytes) -> None:
    in_time_order = TOKENS.transpose(0, 2, 1).reshape(-1)
    assert valid == forged(
        packed_by_hand(in_time_order, 13),
        name=HEADER.model.encode(),
        tokenizer=bytes.fromhex(ID),
        channels=2,
        samples=5000,
        rows=3,
        columns=4,
    )


def test_a_file_of_all_bounds_is_read(folder: Path) -> None:
    header = Header("~" * 96, ID, 768_000, 64, 2**40, 1024, 1, 16)
    tokens = np.full((64, 1024, 1), 2**16 - 1, np.uint16)
    container.write(folder / "large.melcap", header, tokens)
    read_header, read_tokens = container.read(folder / "large.melcap")
    assert read_header == header
    assert bool((read_tokens == 2**16 - 1).all())


# --- headers


@pytest.mark.parametrize("field", BOUNDS)
def test_a_header_keeps_its_bounds(field: str) -> None:
    low, high = BOUNDS[field]
    for value in (low - 1, high + 1, -high, 2**70, 3.0, True, "3", None, np.int64(3)):
        changes: dict[str, Any] = {field: value}
        with pytest.raises(ContainerError, match=f"^{field} is .* whole number from {low} to"):
            replace(HEADER, **changes)


@pytest.mark.parametrize(
    "name", ["", "x" * 97, "zwölf", "a\nb", "\x1b[2J", "a\0", "a\n", b"a", None]
)
def test_a_model_name_is_short_and_plain(name: Any) -> None:
    with pytest.raises(ContainerError, match="model is"):
        replace(HEADER, model=name)


@pytest.mark.parametrize("id", ["", ID[1:], ID + "0", ID.upper(), "x" * 16, ID.encode(), None])
def test_a_tokenizer_id_has_sixteen_digits(id: Any) -> None:
    with pytest.raises(ContainerError, match="tokenizer_id is"):
        replace(HEADER, tokenizer_id=id)


def test_several_channels_have_an_axis() -> None:
    with pytest.raises(ContainerError, match="2 channels need an axis"):
        replace(HEADER, channel_axis=False)


def test_a_header_bounds_the_number_of_tokens() -> None:
    largest = Header("m", ID, 44100, 4, 1, 16, MAX_TOKENS // 64, 13)
    assert largest.token_count == MAX_TOKENS
    assert largest.packed_bytes == MAX_TOKENS * 13 // 8
    with pytest.raises(ContainerError, match="more than a file holds"):
        replace(largest, columns=MAX_TOKENS // 64 + 1)


# --- damage


@pytest.mark.parametrize("call", [container.read, container.read_header])
def test_every_truncation_is_refused(folder: Path, valid: bytes, call: Any) -> None:
    for size in range(len(valid)):
        message = refusal(folder / "cut.melcap", valid[:size], call)
        assert "truncated" in message if size else "empty" in message


@pytest.mark.parametrize("call", [container.read, container.read_header])
@relaxed
@given(extra=st.binary(min_size=1, max_size=100))
def test_every_extension_is_refused(folder: Path, valid: bytes, call: Any, extra: bytes) -> None:
    assert "longer than it should be" in refusal(folder / "long.melcap", valid + extra, call)


@pytest.mark.slow
def test_every_change_of_one_byte_is_refused(folder: Path, valid: bytes) -> None:
    """All 255 other values at every position: the file stays as it was or is refused."""
    path = folder / "changed.melcap"
    path.write_bytes(valid)
    with open(path, "r+b", buffering=0) as file:
        for position, right in enumerate(valid):
            for wrong in set(range(256)) - {right}:
                file.seek(position)
                file.write(bytes([wrong]))
                with pytest.raises(ContainerError):
                    container.read(path)
            file.seek(position)
            file.write(bytes([right]))
    np.testing.assert_array_equal(container.read(path)[1], TOKENS)


@relaxed
@given(st.data())
def test_any_burst_of_bit_flips_is_refused(folder: Path, valid: bytes, data: st.DataObject) -> None:
    flips = data.draw(st.sets(st.integers(0, 8 * len(valid) - 1), min_size=1, max_size=12))
    changed = bytearray(valid)
    for flip in flips:
        changed[flip // 8] ^= 1 << flip % 8
    with allocating_little():
        refusal(folder / "flipped.melcap", bytes(changed))


@relaxed
@given(st.binary(max_size=300), st.sampled_from([b"", b"MELCAP", b"MELCAP\x02", b"MELCAP\x02\x0b"]))
def test_random_bytes_are_refused(folder: Path, data: bytes, start: bytes) -> None:
    with allocating_little():
        refusal(folder / "random.melcap", start + data)
        refusal(folder / "random.melcap", start + data, container.read_header)


@relaxed
@given(st.data())
def test_spliced_files_are_refused(folder: Path, valid: bytes, data: st.DataObject) -> None:
    cut = data.draw(st.integers(1, len(valid) - 1))
    middle = data.draw(st.binary(min_size=1, max_size=20))
    refusal(folder / "spliced.melcap", valid[:cut] + middle + valid[cut:])


# --- hostile files, whose checksums are right


@pytest.mark.slow
@relaxed
@given(
    payload=st.binary(max_size=64),
    name=st.binary(max_size=120),
    rate=st.integers(1, 192_000) | st.integers(0, 2**32 - 1),
    channels=st.integers(1, 8) | st.integers(0, 2**16 - 1),
    samples=st.integers(1, 10_000) | st.integers(0, 2**64 - 1),
    rows=st.integers(1, 12) | st.integers(0, 2**16 - 1),
    columns=st.integers(1, 12) | st.integers(0, 2**32 - 1),
    bits=st.integers(1, 16) | st.integers(0, 255),
    coding=st.just(0) | st.integers(0, 255),
    axis=st.integers(0, 1) | st.integers(0, 255),
)
def test_forged_headers_are_refused(folder: Path, payload: bytes, **fields: Any) -> None:
    """Fields at random agree with a payload this short about never; then it is a valid file."""
    path = folder / "forged.melcap"
    path.write_bytes(forged(payload, **fields))
    with allocating_little(), suppress(ContainerError):
        _, tokens = container.read(path)
        assert tokens.size * fields["bits"] <= 8 * len(payload)


@pytest.mark.parametrize(
    "fields",
    [
        {"columns": 2**32 - 1, "rows": 2**16 - 1, "channels": 2**16 - 1, "bits": 255},
        {"columns": 2**28, "rows": 1, "bits": 16},
        {"columns": 1, "rows": 1024, "channels": 64, "bits": 16},
        {"columns": 2**28, "rows": 1024, "channels": 64, "bits": 16},
        {"columns": 2**27, "rows": 2, "bits": 1, "samples": 2**40},
    ],
)
def test_headers_that_ask_for_terabytes_are_refused(folder: Path, fields: dict[str, Any]) -> None:
    path = folder / "terabytes.melcap"
    for call in (container.read, container.read_header):
        with allocating_little():
            refusal(path, forged(b"\0" * 1000, **fields), call)


def test_a_sparse_file_as_large_as_its_header_says_is_refused(folder: Path) -> None:
    """A hole costs nothing on a disk, so the size of the file is no bound by itself."""
    path = folder / "sparse.melcap"
    start = forged(rows=1024, channels=64, columns=2**20)[:-4]
    path.write_bytes(start)
    os.truncate(path, len(start) + 2**40 * 13 // 8 + 4)
    with allocating_little(), pytest.raises(ContainerError, match="more than a file holds"):
        container.read(path)
    path.unlink()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("rate", 999),
        ("rate", 768_001),
        ("channels", 0),
        ("channels", 65),
        ("samples", 0),
        ("samples", 2**40 + 1),
        ("rows", 0),
        ("rows", 1025),
        ("columns", 0),
        ("bits", 0),
        ("bits", 17),
        ("name", b""),
        ("name", b"x" * 97),
        ("name", b"x\n"),
        ("name", b"\xff"),
    ],
)
def test_a_field_out_of_bounds_is_named(folder: Path, field: str, value: Any) -> None:
    name = {"rate": "sample_rate", "name": "model"}.get(field, field)
    fields: dict[str, Any] = {field: value}
    assert refusal(folder / "field.melcap", forged(bytes(20), **fields)).startswith(f"{name} is ")


def test_padding_bits_of_a_file_must_be_zero(folder: Path) -> None:
    payload = bytes(19) + b"\x0f"  # 12 tokens of 13 bits leave 4 bits of the 20th byte
    assert "unused bits" in refusal(folder / "padding.melcap", forged(payload))
    (folder / "padding.melcap").write_bytes(forged(bytes(19) + b"\x10"))
    assert container.read(folder / "padding.melcap")[1][0, -1, 0] == 1


# --- what the sentences say


def test_damage_is_described(folder: Path, valid: bytes) -> None:
    path = folder / "described.melcap"
    newer = valid[:6] + b"\x03" + valid[7:]
    for data, words in [
        (b"", "empty"),
        (b"RIFF....WAVEfmt ", "not a .melcap file"),
        (newer, "format version is 3, but this melcap reads 2"),
        (valid[:30], "truncated: it ends inside the header"),
        (valid[:50], "truncated: it ends inside the header"),
        (valid[:-1], f"truncated: {len(valid) - 1} bytes, not the {len(valid)}"),
        (forged(bytes(20), coding=2), "coded in a way (2, 1) that this melcap does not know"),
        (forged(bytes(20), axis=2), "coded in a way (0, 2)"),
        (forged(bytes(39), channels=2, axis=0), "2 channels need an axis"),
        (valid[:20] + b"\xff" + valid[21:], "the header is damaged"),
        (valid[:75] + b"\xff" + valid[76:], "the token data is damaged"),
        (valid + b"\n", "longer than it should be"),
    ]:
        assert words in refusal(path, data)


@pytest.mark.parametrize("call", [container.read, container.read_header])
def test_what_is_no_file_is_refused(tmp_path: Path, valid: bytes, call: Any) -> None:
    os.mkfifo(tmp_path / "pipe")
    pipe = os.open(tmp_path / "pipe", os.O_RDWR)
    os.write(pipe, valid)  # so that a reader that opens it fails the test rather than hang it
    for path, words in [
        (tmp_path / "missing", "No such file"),
        (tmp_path, "it is a folder, not a regular file"),
        (tmp_path / "pipe", "it is a pipe, not a regular file"),
        (Path("/dev/zero"), "it is a device, not a regular file"),
        (tmp_path / "nul\0", "null"),
        (tmp_path / ("x" * 300), "name too long"),
    ]:
        with pytest.raises(ContainerError, match=words):
            call(path)
    os.close(pipe)


def test_a_file_that_may_not_be_read_is_refused(
    folder: Path, valid: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(*_: object) -> None:
        raise PermissionError(13, "Permission denied")  # chmod would not stop a test run as root

    monkeypatch.setattr(container_file, "open", denied, raising=False)
    assert refusal(folder / "denied.melcap", valid) == "Permission denied"


# --- writing leaves all or nothing


def test_a_new_file_has_the_usual_permissions(tmp_path: Path) -> None:
    container.write(tmp_path / "a.melcap", HEADER, TOKENS)
    (tmp_path / "plain").touch()
    assert (tmp_path / "a.melcap").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 240 + ".melcap")  # so long that no suffix fits
    path.write_bytes(b"before")
    container.write(os.fspath(path), HEADER, TOKENS)
    np.testing.assert_array_equal(container.read(os.fspath(path))[1], TOKENS)
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        (TOKENS[:1], "shape"),
        (TOKENS.transpose(0, 2, 1), "shape"),
        (TOKENS.reshape(-1), "shape"),
        (TOKENS + 0.5, "integer"),
        (TOKENS - 1, "token -1 does not fit"),
        (TOKENS + 8000, "does not fit 13 bits"),
    ],
)
def test_wrong_tokens_are_not_written(tmp_path: Path, tokens: npt.NDArray[Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        container.write(tmp_path / "a.melcap", HEADER, tokens)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failure_half_way_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def fail(*_: object) -> None:
        assert len(os.listdir(tmp_path)) == 2, "the temporary file is in the same folder"
        raise error

    path = tmp_path / "a.melcap"
    path.write_bytes(b"before")
    monkeypatch.setattr(os, "replace", fail)
    expected = ContainerError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected):
        container.write(path, HEADER, TOKENS)
    assert os.listdir(tmp_path) == ["a.melcap"]
    assert path.read_bytes() == b"before"


def test_where_nothing_can_be_written_nothing_is(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"before")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    before = sorted(tmp_path.iterdir())
    for name, words in [
        ("folder", "it is a folder, not a regular file"),
        ("pipe", "it is a pipe, not a regular file"),
        ("missing/a.melcap", "No such file"),
        ("file/a.melcap", "Not a directory"),
        ("nul\0", "null"),
        ("x" * 300, "name too long"),
    ]:
        with pytest.raises(ContainerError, match=words) as caught:
            container.write(tmp_path / name, HEADER, TOKENS)
        assert str(caught.value).startswith(f"'{tmp_path / name}' cannot be written: ")
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "file").read_bytes() == b"before"
