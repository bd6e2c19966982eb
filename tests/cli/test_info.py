"""`melcap info`: facts about .melcap files and models."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from melcap import pretrained
from melcap.codec import Codec
from melcap.streaming import StreamDecoder, StreamEncoder
from tests.cli.helpers import Cli, clip, refused
from tests.helpers import SMALL


class TestInfo:
    def test_tokens(self, melcap_cli: Cli, tokens: Path, codec: Codec) -> None:
        data = json.loads(melcap_cli("info", tokens, "--json").stdout)
        assert data == {
            "file": str(tokens),
            "model": codec.model,
            "tokenizer_id": codec.tokenizer_id,
            "sample_rate": 44100,
            "channels": 1,
            "samples": 132300,
            "seconds": 3.0,
            "rows": 3,
            "columns": 130,
            "bits_per_token": 9,
            "tokens": 390,
            "compact": False,
            "bytes": tokens.stat().st_size,
            "kbps": tokens.stat().st_size * 8 / 3000,
        }
        table = melcap_cli("info", tokens).stdout
        for part in (
            tokens,
            codec.model,
            codec.tokenizer_id,
            "3.00 s",
            "44100 Hz",
            "3 rows x 130 columns",
        ):
            assert str(part) in table

    def test_weights(self, melcap_cli: Cli, small_weights: Path, codec: Codec) -> None:
        data = json.loads(melcap_cli("info", small_weights, "--json").stdout)
        assert data["model"] == codec.model
        assert data["sha256"].startswith(codec.model.rpartition("-")[2])
        trained = sum(parameter.numel() for parameter in codec.parameters())
        assert data["parameters"]["total"] == trained + 300 * 8
        assert data["latency_seconds"]["encoder"] == StreamEncoder(codec).latency
        assert data["latency_seconds"]["decoder"] == StreamDecoder(codec).latency

    def test_a_decoder_alone(self, melcap_cli: Cli, tmp_path: Path, codec: Codec) -> None:
        path = tmp_path / "decoder.safetensors"
        digest = pretrained.save_decoder(codec, path)
        data = json.loads(melcap_cli("info", path, "--json").stdout)
        assert data["decoder_for_tokenizer"] == codec.tokenizer_id
        assert (data["sha256"], data["model"]) == (digest, f"small-{digest[:16]}")
        assert "a decoder alone" in melcap_cli("info", path).stdout

    def test_the_receptive_field_is_what_a_column_sees(
        self, melcap_cli: Cli, small_weights: Path, codec: Codec
    ) -> None:
        """Samples beyond it change nothing; the ones just inside reach the front end."""
        sees = json.loads(melcap_cli("info", small_weights, "--json").stdout)[
            "encoder_sees_seconds"
        ]
        before, after = round(sees["before"] * 44100), round(sees["after"] * 44100)
        column, unit = 30, SMALL.column_samples
        torch.manual_seed(2)
        wave = 0.1 * torch.randn(60 * unit)
        same = codec.encode(wave, 44100).tokens[:, column]
        outside = wave.clone()
        outside[: column * unit - before] = 0.5 * torch.randn(column * unit - before)
        outside[(column + 1) * unit + after :] = 0
        assert torch.equal(codec.encode(outside, 44100).tokens[:, column], same)
        inside = wave.clone()
        inside[column * unit : (column + 1) * unit] = 0
        assert not torch.equal(codec.encode(inside, 44100).tokens[:, column], same)

    def test_the_default_model(self, melcap_cli: Cli) -> None:
        data = json.loads(melcap_cli("info", "--json").stdout)
        assert round(data["tokens_per_second"], 1) == 258.4
        assert round(data["kbps"], 2) == 3.36
        assert data["parameters"]["total"] < 12e6
        assert data["bytes"] < 20e6
        table = melcap_cli("info").stdout
        for part in (data["model"], data["sha256"], "258.4 a second", "3.36 kbps"):
            assert part in table

    def test_neither(self, melcap_cli: Cli, tmp_path: Path) -> None:
        refused(melcap_cli("info", clip(tmp_path / "a.wav")), "a.wav", "is audio")
        (tmp_path / "notes.txt").write_text("hello")
        refused(melcap_cli("info", tmp_path / "notes.txt"), "notes.txt", "not a melcap weights")
        refused(melcap_cli("info", tmp_path / "nowhere"), "nowhere")
