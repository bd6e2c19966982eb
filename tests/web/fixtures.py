"""Write what the tests of the npm package compare with, as Python makes it.

`python -m tests.web.fixtures` writes to `web/test/fixtures/`, where `npm test` looks for it.

- `files.json`: files of tokens, with what they hold.
- `refused.json`: files that Python refuses, with its sentences.
- `coder.json`: row tables and tokens, with the bytes of the range coder.
- `row-tables.bin`: the row tables of the weights that ship.
"""

from __future__ import annotations

import base64
import json
import struct
import zlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

import melcap
from melcap.errors import ContainerError
from melcap.io import container
from melcap.io.container import BOUNDS, Header, row_tables
from tests.io.coder_cases import overflowing

FOLDER = Path(__file__).parents[2] / "web" / "test" / "fixtures"

COUNTS = (0, 1, 2, 63, 64, 65, 1024, 1025, 2**16 - 1, 2**28, 2**28 + 1)
EXTREMES = (*COUNTS, 2**40, 2**40 + 1, 2**64 - 1)


def write(folder: Path = FOLDER) -> None:
    """Write the files to a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    codec = melcap.load()
    tables = row_tables.find(codec.tokenizer_id)
    (folder / "row-tables.bin").write_bytes(tables.frequencies.astype("<u2").tobytes())
    files = [*_drawn(), *_compact(codec.tokenizer_id, codec.model)]
    (folder / "files.json").write_text(json.dumps(files))
    small = base64.b64decode(files[0]["bytes"])
    compact = base64.b64decode(files[-1]["bytes"])
    refused = [*_hostile(small), *_hostile(compact)]
    (folder / "refused.json").write_text(json.dumps(refused))
    (folder / "coder.json").write_text(json.dumps(_coded()))


def _drawn() -> list[dict[str, Any]]:
    """Return packed files of every number of bits, of random shapes."""
    random = np.random.default_rng(0)
    files = []
    for bits in range(1, 17):
        channels, rows, columns = (int(random.integers(1, most)) for most in (4, 14, 40))
        header = Header(
            "".join(map(chr, random.integers(32, 127, int(random.integers(1, 97))))),
            random.bytes(8).hex(),
            int(random.integers(*BOUNDS["sample_rate"])),
            channels,
            int(random.integers(1, 2**40)),
            rows,
            columns,
            bits,
            channel_axis=channels > 1 or bool(random.integers(2)),
        )
        tokens = random.integers(0, 2**bits, (channels, rows, columns))
        files.append(_file(header, tokens))
    return files


def _compact(tokenizer_id: str, model: str) -> list[dict[str, Any]]:
    """Return compact files, whose tokens are drawn as the row tables expect them."""
    random = np.random.default_rng(1)
    frequencies = row_tables.find(tokenizer_id).frequencies
    shares = frequencies / frequencies.sum(1, keepdims=True)
    files = []
    for channels, columns in ((2, 300), (1, 3), (1, 1), (1, 40)):
        shape = (channels, columns)
        rows = [random.choice(len(share), shape, p=share) for share in shares]
        header = Header(
            model, tokenizer_id, 44100, channels, 2048 * columns, 12, columns, 13, compact=True
        )
        files.append(_file(header, np.stack(rows, axis=1)))
    return files


def _file(header: Header, tokens: np.ndarray[Any, Any]) -> dict[str, Any]:
    data = container.pack(header, tokens)
    return {
        "bytes": base64.b64encode(data).decode(),
        "header": asdict(container.unpack(data)[0]),
        "tokens": tokens.reshape(-1).tolist(),
    }


def _coded() -> list[dict[str, Any]]:
    """Return row tables, and tokens whose last words overflow, carry, or need a zero word."""
    coded = []
    for seed in range(300):
        tables, cases = overflowing(seed, 60, seed % 5 / 4)
        coded.append(
            {
                "frequencies": tables.frequencies.tolist()[0],
                "cases": [{"tokens": tokens, "bytes": data.hex()} for tokens, data in cases],
            }
        )
    return coded


def _hostile(data: bytes) -> list[dict[str, str]]:
    """Return altered files with Python's sentences: cut, extended, and with valid checksums."""
    altered = [data[:size] for size in range(len(data))] + [data + b"\0", data * 2]
    altered += [bytes([value]) + data[1:] for value in (0, 255)]
    end = 39 + data[7] + (8 if data[37] else 0)
    for offset in range(6, end):
        for value in {0, 1, 2, 127, 128, 255, data[offset] ^ 1}:
            altered.append(_with_checksum(data, end, offset, bytes([value])))
    for offset, size in ((16, 4), (20, 2), (22, 8), (30, 2), (32, 4), (end - 4, 4)):
        for value in EXTREMES:
            if value < 256**size:
                changed = value.to_bytes(size, "little")
                altered.append(_with_checksum(data, end, offset, changed))
    if data[37]:  # compact files of the smallest and the largest size that is possible, and beyond
        tokens = data[20] * data[30] * int.from_bytes(data[32:36], "little")
        for size in (-(-tokens // 4), -(-tokens * 13 // 8)):
            for near in range(size - 5, size + 6):
                changed = near.to_bytes(4, "little")
                altered.append(_with_checksum(data, end, end - 4, changed))
    payload = data[end + 4 : -4]
    for place in range(len(payload)):
        changed = payload[:place] + bytes([payload[place] ^ 1]) + payload[place + 1 :]
        checksum = struct.pack("<I", zlib.crc32(changed))
        altered.append(data[: end + 4] + changed + checksum)
    return [entry for one in altered if (entry := _refused(one))]


def _with_checksum(data: bytes, end: int, offset: int, value: bytes) -> bytes:
    header = data[:offset] + value + data[offset + len(value) : end]
    return header + struct.pack("<I", zlib.crc32(header)) + data[end + 4 :]


def _refused(data: bytes) -> dict[str, str] | None:
    try:
        container.unpack(data)
    except ContainerError as error:
        return {"bytes": base64.b64encode(data).decode(), "reason": str(error)}
    return None


if __name__ == "__main__":
    write()
