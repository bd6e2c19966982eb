"""Compact .melcap files: coded by row tables, exact, and as hard to fool as packed ones."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from melcap import transcode
from melcap.bulk.row_frequencies import frequencies, row_tables_of
from melcap.bulk.stats import Summary, summarise
from melcap.bulk.token_sets.shards import read_rows, token_files
from melcap.bulk.tokenize import Options, tokenize
from melcap.cli import commands as cli
from melcap.codec import Codec
from melcap.codes import Codes
from melcap.errors import ContainerError, InputError
from melcap.io import container
from melcap.io.container import Header, range_coder, row_tables
from melcap.io.container.header import Payload, header_bytes, with_checksum
from melcap.io.container.row_tables import SWITCH, TOTAL_BITS, RowTables
from melcap.transcode import decode_file, encode_file
from tests.io.coder_cases import ID, SIZE, drawn, overflowing
from tests.io.test_container import allocating_little, refusal

SPEECH = Path(__file__).parents[1] / "data" / "speech.flac"
HEADER = Header("melcap-lite-0123456789abcdef", ID, 44100, 2, 5000, 3, 40, 13, compact=True)


TABLES = drawn(0)
TOKENS = np.stack(
    [
        np.random.default_rng(row).choice(SIZE, (2, 40), p=each / 2**TOTAL_BITS)
        for row, each in enumerate(TABLES.frequencies)
    ],
    axis=1,
)


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the tables, where they are looked for."""
    folder = tmp_path_factory.mktemp("tables")
    TABLES.save(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(SWITCH, str(folder))
        yield folder


@pytest.fixture(scope="module")
def valid() -> bytes:
    return container.pack(HEADER, TOKENS)


def forged(coded: bytes, size: int | None = None, **fields: Any) -> bytes:
    """A compact file with correct checksums, whatever its fields say."""
    values: dict[str, Any] = {
        "rate": 44100,
        "channels": 2,
        "samples": 5000,
        "rows": 3,
        "columns": 40,
        "bits": 13,
        "coding": 1,
        "axis": 1,
        "tables": TABLES.checksum,
        **fields,
    }
    *fixed, tables = values.values()
    name = b"melcap-lite-0123456789abcdef"
    head = struct.pack("<6sBB8sIHQHIBBB", b"MELCAP", 2, len(name), bytes.fromhex(ID), *fixed)
    head += name + struct.pack("<II", tables, len(coded) if size is None else size)
    crc = struct.Struct("<I").pack
    return head + crc(zlib.crc32(head)) + coded + crc(zlib.crc32(coded))


def coded_part(file: bytes) -> bytes:
    """The words of a compact file."""
    return file[39 + len(HEADER.model) + 8 + 4 : -4]


# --- tables


@pytest.mark.slow
@given(
    st.lists(st.integers(0, 50) | st.integers(0, 2**40), min_size=8, max_size=8)
    | st.lists(st.integers(0, 9), min_size=300, max_size=300)
)
def test_frequencies_follow_the_counts(counts: list[int]) -> None:
    found = frequencies(np.array(counts)).astype(np.int64)
    assert int(found.sum()) == 1 << TOTAL_BITS
    assert found.min() >= 1
    order = np.argsort(counts, kind="stable")
    assert (np.diff(found[order]) >= -1).all(), "a rarer entry has more"
    share = (np.array(counts) + 0.5) / (sum(counts) + len(counts) / 2) * 2**TOTAL_BITS
    if share.min() >= 2 and share.max() < 2**16 - 1:
        assert np.abs(found - share).max() <= 1 + share.max() * len(counts) / 2**TOTAL_BITS


def test_tables_of_counted_tokens() -> None:
    summary = Summary(tokenizer_id=ID, counts=np.ones((3, SIZE), np.int64))
    assert row_tables_of(summary).frequencies.tolist() == [[2**TOTAL_BITS // SIZE] * SIZE] * 3
    with pytest.raises(InputError, match="at least 8 entries"):
        frequencies(np.ones(4, np.int64))


def altered(*changes: tuple[int, int]) -> npt.NDArray[np.uint16]:
    """The frequencies with other ones in the first row."""
    frequencies = TABLES.frequencies.astype(np.int64)
    for entry, by in changes:
        frequencies[0, entry] += by
    return frequencies.astype(np.uint16)


FIRST = int(TABLES.frequencies[0, 0])


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (altered((2, 1)), "add up to"),
        (altered((0, -FIRST), (1, FIRST)), "positive"),
        (TABLES.frequencies.astype(np.int32), "uint16"),
        (TABLES.frequencies[0], "2-D"),
        (TABLES.frequencies[:, :12], "power of two"),
        (np.repeat(TABLES.frequencies, 342, axis=0), "1 to 1024 rows"),
    ],
)
def test_what_is_no_row_table_is_refused(wrong: npt.NDArray[Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        RowTables(ID, wrong)


def test_the_tables_that_ship_are_those_of_the_weights_that_ship(lite: Codec) -> None:
    tables = row_tables.find(lite.tokenizer_id)
    assert tables.frequencies.shape == (lite.config.rows, lite.config.tokenizer.codebook_size)


def test_tables_are_found_by_tokenizer_and_checksum(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.testing.assert_array_equal(row_tables.find(ID).frequencies, TABLES.frequencies)
    assert row_tables.find(ID, TABLES.checksum).checksum == TABLES.checksum
    with pytest.raises(ContainerError, match=f"checksum 0000000c are not here, but .*{ID}"):
        row_tables.find(ID, 12)
    with pytest.raises(ContainerError, match=f"tokenizer {'e' * 16} are not here: .* {SWITCH} "):
        row_tables.find("e" * 16)
    monkeypatch.setenv(SWITCH, str(tmp_path))
    path = TABLES.save(tmp_path)
    other = path.rename(path.with_name(path.name.replace(ID, "d" * 16)))
    with pytest.raises(ContainerError, match=f"are the row tables of tokenizer {ID}"):
        row_tables.find("d" * 16)
    other.with_name(path.name).write_bytes(other.read_bytes()[:-1])
    with pytest.raises(ContainerError, match="not a file of row tables"):
        row_tables.find(ID)


# --- what goes in comes out


@pytest.mark.slow
@given(st.integers(0, 2**32), st.integers(1, 4), st.integers(1, 60), st.sampled_from([8, 16, 4096]))
def test_tokens_come_back(seed: int, rows: int, count: int, size: int) -> None:
    tables = drawn(seed, rows, size)
    generator = np.random.default_rng(seed)
    shares = tables.frequencies / 2**TOTAL_BITS
    usual = np.stack([generator.choice(size, count, p=each) for each in shares])
    commonest = np.repeat(shares.argmax(1)[:, None], count, axis=1)
    first_and_last = generator.integers(0, 2, (rows, count)) * (size - 1)
    for tokens in (usual, commonest, first_and_last, generator.integers(0, size, (rows, count))):
        data = range_coder.encode(tokens, tables)
        decoded = range_coder.decode(data, tables, count)
        assert decoded.dtype == np.int32
        np.testing.assert_array_equal(decoded, tokens)
        cost = -np.log2(np.take_along_axis(shares, tokens, 1)).sum()
        assert cost <= 8 * len(data) <= cost * 1.001 + 64


def test_the_bytes_are_the_same_for_ever() -> None:
    """Files must be read by every later release, on every machine."""
    table = np.full((2, 8), 2**TOTAL_BITS // 8, np.uint16)
    table[1] = [65535, 65535, 65535, 65000, 300, 200, 38, 1]
    tokens = np.arange(48).reshape(2, 24) * 5 % 8
    assert range_coder.encode(tokens, RowTables(ID, table)).hex() == (
        "15737815b3f8f473325a0615ac622be33e296c6bf0276b05d4588decc798a4a1"
    )


def test_a_file_is_compact_where_that_is_smaller(tmp_path: Path, valid: bytes) -> None:
    path = tmp_path / "a.melcap"
    assert container.write(path, HEADER, TOKENS) == len(valid) == path.stat().st_size
    assert valid == forged(coded_part(valid))
    assert len(coded_part(valid)) < HEADER.packed_bytes
    for header, tokens in (container.read(path), container.unpack(valid)):
        assert header == HEADER
        assert tokens.flags["C_CONTIGUOUS"]
        np.testing.assert_array_equal(tokens, TOKENS)
    assert container.read_header(path) == container.verify(path) == HEADER
    rarest = np.broadcast_to(TABLES.frequencies.argmin(1)[:, None], TOKENS.shape)
    packed = container.pack(replace(HEADER, bits=4), rarest)
    assert packed == container.pack(replace(HEADER, bits=4, compact=False), rarest)


@pytest.mark.parametrize(
    ("tokens", "words"),
    [(TOKENS[:, :2], "for 3 rows"), (TOKENS + 3, "tokens from 0 to 15")],
)
def test_tokens_of_another_kind_are_not_written(tokens: npt.NDArray[Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        container.pack(replace(HEADER, rows=tokens.shape[1]), tokens)


@given(st.integers(0, 2**32), st.integers(1, 120), st.floats(0, 1))
def test_words_that_overflow_carry(seed: int, count: int, often: float) -> None:
    """Tokens are drawn towards the place where a carry through several words is decided last."""
    tables, cases = overflowing(seed, count, often)
    for tokens, data in cases:
        assert range_coder.encode(np.array([tokens]), tables) == data


@given(st.integers(0, 2**32), st.integers(1, 3), st.integers(1, 200), st.sampled_from([8, 64]))
def test_the_bytes_are_those_of_constriction(seed: int, rows: int, count: int, size: int) -> None:
    """Its model is exact with whole shares of one less each, which it scales by x / x."""
    stream = pytest.importorskip("constriction").stream
    tables = drawn(seed, rows, size)
    tokens = np.random.default_rng(seed).integers(0, size, (rows, count), np.int32)
    if seed % 2:  # runs of the first and the last entry make the longest carries
        tokens = np.where(tokens < size // 2, 0, size - 1).astype(np.int32)
    encoder = stream.queue.RangeEncoder()
    for table, row in zip(tables.frequencies, tokens, strict=True):
        shares = table.astype(np.float64) * 64 - 1
        encoder.encode(row, stream.model.Categorical(shares, perfect=False))
    assert range_coder.encode(tokens, tables) == encoder.get_compressed().astype("<u4").tobytes()


# --- damage


@pytest.mark.slow
@pytest.mark.parametrize("call", [container.read, container.read_header, container.verify])
def test_every_truncation_and_extension_is_refused(tmp_path: Path, valid: bytes, call: Any) -> None:
    path = tmp_path / "cut.melcap"
    for size in range(len(valid)):
        assert ("truncated" if size else "empty") in refusal(path, valid[:size], call)
    for size in (1, 4, 100):
        assert "longer than it should be" in refusal(path, valid + bytes(size), call)


def test_every_change_of_one_byte_is_refused(valid: bytes) -> None:
    changed = bytearray(valid)
    for position, right in enumerate(valid):
        for wrong in {0, 255, *(right ^ 1 << bit for bit in range(8))} - {right}:
            changed[position] = wrong
            with pytest.raises(ContainerError):
                container.unpack(bytes(changed))
        changed[position] = right
    np.testing.assert_array_equal(container.unpack(bytes(changed))[1], TOKENS)


@given(st.data())
def test_bursts_and_splices_are_refused(valid: bytes, data: st.DataObject) -> None:
    flips = data.draw(st.sets(st.integers(0, 8 * len(valid) - 1), min_size=1, max_size=12))
    changed = bytearray(valid)
    for flip in flips:
        changed[flip // 8] ^= 1 << flip % 8
    cut = data.draw(st.integers(1, len(valid) - 1))
    middle = data.draw(st.binary(min_size=1, max_size=20))
    for file in (bytes(changed), valid[:cut] + middle + valid[cut:]):
        with allocating_little(), pytest.raises(ContainerError):
            container.unpack(file)


# --- hostile files, whose checksums are right


@pytest.mark.slow
@given(st.data())
def test_words_that_the_encoder_does_not_write_are_refused(
    valid: bytes, data: st.DataObject
) -> None:
    """Either they are refused, or they are what the encoder makes of the tokens they give."""
    coded = bytearray(coded_part(valid))
    for flip in data.draw(st.sets(st.integers(0, 8 * len(coded) - 1), max_size=3)):
        coded[flip // 8] ^= 1 << flip % 8
    coded += data.draw(st.sampled_from([b"", bytes(4), b"\1\0\0\0", bytes(8)]))
    coded = coded[: len(coded) - 4 * data.draw(st.integers(0, 2))]
    file = forged(bytes(coded))
    with allocating_little():
        try:
            header, tokens = container.unpack(file)
        except ContainerError:
            assert bytes(coded) != coded_part(valid)
            return
    assert container.pack(header, tokens) == file


@given(st.integers(0, 2**32), st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=3))
def test_few_words_have_one_reading(seed: int, words: list[int]) -> None:
    """Short enough for any words to be right by chance, and for zeros to be left out or added."""
    data = np.array(words, "<u4").tobytes()
    for count in range(1, 6):
        try:
            tokens = range_coder.decode(data, TABLES, count)
        except ContainerError:
            continue
        assert range_coder.encode(tokens, TABLES) == data


def test_the_end_of_short_codes_is_exact() -> None:
    """For every pair of tokens: no words near the ones that are written read as the same."""
    tables = drawn(1, 1, 8)
    for first in range(8):
        for second in range(8):
            tokens = [[first, second]]
            data = range_coder.encode(np.array(tokens), tables)
            (value,) = struct.unpack("<I", data)
            near = [struct.pack("<I", value + by) for by in (-1, 1) if 0 <= value + by < 2**32]
            for other in (data + bytes(4), data[:3], b"", *near):
                with suppress(ContainerError):
                    assert range_coder.decode(other, tables, 2).tolist() != tokens


@given(
    coded=st.binary(max_size=16).map(lambda part: part * 4),
    size=st.none() | st.integers(0, 100) | st.integers(0, 2**32 - 1),
    rate=st.integers(1, 192_000) | st.integers(0, 2**32 - 1),
    channels=st.integers(1, 3) | st.integers(0, 2**16 - 1),
    rows=st.just(3) | st.integers(0, 2**16 - 1),
    columns=st.integers(1, 40) | st.integers(0, 2**32 - 1),
    bits=st.integers(1, 16) | st.integers(0, 255),
    axis=st.integers(0, 1) | st.integers(0, 255),
    tables=st.just(TABLES.checksum) | st.integers(0, 2**32 - 1),
)
def test_forged_headers_are_refused(coded: bytes, **fields: Any) -> None:
    with allocating_little():
        try:
            _, tokens = container.unpack(forged(coded, **fields))
        except ContainerError:
            return
        assert tokens.size <= 4 * len(coded)
        assert tokens.max() < 2 ** fields["bits"]


@pytest.mark.parametrize(
    ("coded", "fields", "words"),
    [
        (bytes(1000), {"columns": 2**26, "channels": 1}, "cannot be coded in 1000 bytes"),
        (bytes(1000), {"columns": 2**26, "channels": 1, "size": 2**28}, "truncated"),
        (bytes(1000), {"columns": 2**28, "rows": 1024, "channels": 64}, "more than a file holds"),
        (bytes(60), {"columns": 41}, "cannot be coded in 60 bytes: that takes 62 to"),
        (bytes(396), {"columns": 40}, "that takes 60 to 389"),
        (bytes(63), {}, "in multiples of 4"),
        (bytes(200), {"rows": 6, "columns": 20}, "for 3 rows of tokens, not 6"),
        (bytes(200), {"tables": 1}, "checksum 00000001 are not here, but others"),
        (b"\xff" * 200, {}, "cannot have been coded with these row tables"),
        (bytes(200), {}, "does not end with the last token"),
    ],
)
def test_files_that_ask_for_too_much_are_refused(
    coded: bytes, fields: dict[str, Any], words: str
) -> None:
    file = forged(coded, **fields)
    with allocating_little(), pytest.raises(ContainerError, match=words):
        container.unpack(file)


def test_reading_ends_where_the_words_end() -> None:
    """The cheapest tokens cost 2 bits: time and memory stay in proportion to the bytes."""
    largest = RowTables(ID, np.array([[65535] * 3 + [65534, 1, 1, 1, 2]], np.uint16))
    for seen in range(0, 300, 50):
        data = np.zeros(seen // 4 + 1, "<u4").tobytes()
        with allocating_little(), pytest.raises(ContainerError, match="ends before the last token"):
            range_coder.decode(data, largest, 2**28)


def test_a_token_must_fit_the_bits_of_its_header(folder: Path) -> None:
    """The size is no reason to refuse the file: all tokens but one cost 2 bits."""
    tables = RowTables("b" * 16, np.array([[65535] * 3 + [65527, *[1] * 12]], np.uint16))
    tables.save(folder)
    header = replace(HEADER, tokenizer_id=tables.tokenizer_id, rows=1, bits=4)
    tokens = np.zeros((2, 1, 40), int)
    tokens[1, 0, 7] = 8
    file = container.pack(header, tokens)
    coded = coded_part(file)
    payload = Payload(len(coded), tables.checksum)
    assert file == header_bytes(header, payload) + with_checksum(coded)
    smaller = header_bytes(replace(header, bits=3), payload) + with_checksum(coded)
    with pytest.raises(ContainerError, match="token 8 does not fit 3 bits"):
        container.unpack(smaller)


# --- where a user asks for it


@pytest.fixture(scope="module")
def packed(codec: Codec, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Packed tokens of a small codec, of whose tokenizer there are row tables now."""
    path = tmp_path_factory.mktemp("packed") / "speech.melcap"
    encode_file(SPEECH, path, codec)
    row_tables_of(summarise([path])).save(folder)
    return path


def test_codes_and_files_are_compact_where_asked(
    codec: Codec, packed: Path, tmp_path: Path
) -> None:
    done = encode_file(SPEECH, tmp_path / "a.melcap", codec, compact=True)
    assert done.file_bytes < 0.95 * packed.stat().st_size
    header, tokens = container.read(done.target)
    assert (replace(header, compact=False), header.compact) == (container.read_header(packed), True)
    np.testing.assert_array_equal(tokens, container.read(packed)[1])
    codes = Codes.load(done.target)
    codes.save(tmp_path / "b.melcap", compact=True)
    assert (tmp_path / "b.melcap").read_bytes() == codes.to_bytes(compact=True)
    assert container.read_header(tmp_path / "b.melcap").compact
    assert torch.equal(Codes.from_bytes(codes.to_bytes(compact=True)).tokens, codes.tokens)
    decode_file(packed, tmp_path / "packed.wav", codec)
    decode_file(done.target, tmp_path / "compact.wav", codec)
    assert (tmp_path / "packed.wav").read_bytes() == (tmp_path / "compact.wav").read_bytes()


def test_what_cannot_be_compact_is_refused_and_leaves_nothing(
    codec: Codec, packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes = Codes.load(packed)
    with pytest.raises(InputError, match=r"only a \.melcap file is compact"):
        codes.save(tmp_path / "a.safetensors", compact=True)
    with pytest.raises(InputError, match=r"only a \.melcap file is compact"):
        replace(codes, tokens=codes.tokens[None]).to_bytes(compact=True)
    with pytest.raises(InputError, match="--format melcap"):
        Options(compact=True)
    monkeypatch.delenv(SWITCH)
    monkeypatch.setattr(transcode, "AudioReader", None)  # it is refused before it is encoded
    with pytest.raises(ContainerError, match=f"tokenizer {codec.tokenizer_id} are not here"):
        encode_file(SPEECH, tmp_path / "a.melcap", codec, compact=True)
    with pytest.raises(ContainerError, match="are not here"):
        tokenize([str(SPEECH)], tmp_path, codec, Options(format="melcap", compact=True))
    assert not os.listdir(tmp_path)


def test_a_compact_token_set_is_one_of_melcap_files(
    codec: Codec, packed: Path, tmp_path: Path
) -> None:
    options = Options(format="melcap", compact=True, readers=1, encoders=1)
    tokenize([str(SPEECH)], tmp_path, codec, options)
    (file,) = token_files(tmp_path)
    (row,) = read_rows(file, tmp_path)
    assert row.header.compact
    np.testing.assert_array_equal(row.grid, container.read(packed)[1])
    with pytest.raises(InputError, match="made with compact True, and this run has compact False"):
        tokenize([str(SPEECH)], tmp_path, codec, replace(options, compact=False))


@pytest.mark.slow
def test_the_commands(
    packed: Path, small_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def call(*arguments: object) -> Any:
        return CliRunner().invoke(cli.app, [str(each) for each in arguments])

    file, audio, weights = tmp_path / "a.melcap", tmp_path / "b.wav", ("--weights", small_weights)
    assert call("encode", SPEECH, "--compact", "-o", file, *weights).exit_code == 0
    kept = call("transcode", SPEECH, "--keep", "--compact", "-o", audio, *weights)
    assert kept.exit_code == 0
    assert container.read_header(file) == container.read_header(audio.with_suffix(".melcap"))
    refused = call("transcode", SPEECH, "--compact", "--force", "-o", audio, *weights)
    assert refused.exit_code == 2
    assert "--keep" in refused.stderr
    monkeypatch.delenv(SWITCH)
    assert "compact, by row tables" in call("info", file).stdout
    assert "packed" in call("info", packed).stdout
    decoded = call("decode", file, *weights)
    assert decoded.exit_code == 1
    assert f"'{file}' cannot be read: the row tables of tokenizer" in decoded.stderr
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    assert "damaged" in call("info", file).stderr
