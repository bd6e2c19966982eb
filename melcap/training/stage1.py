"""Stage 1: encoder, codebook and mel decoder learn to give log-mel pictures back."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from melcap.codec import Codec
from melcap.config import CodecConfig
from melcap.mel import LogMel
from melcap.quantizer import Codebook
from melcap.stages import inputs_for, outputs_of
from melcap.tokenizer import mel_decoder, mel_encoder
from melcap.training.codebook import CodebookLearner

COMMITMENT = 0.25


class Stage1:
    """L1 on the normalised log-mel plus commitment; the codebook learns by moving averages.

    Crops carry the context of encoder and decoder, so every supervised frame is computed exactly as
    it will be in use: `columns` columns of the picture are compared in each crop.
    """

    peak_rate = 1.5e-3
    bf16 = False

    def __init__(self, config: CodecConfig, columns: int = 32, batch: int = 8) -> None:
        self.batch = batch
        self.front = LogMel(config.mel)
        self.encoder = mel_encoder(config)
        self.decoder = mel_decoder(config)
        self.codebook = Codebook(config.tokenizer.codebook_size, config.tokenizer.codebook_dim)
        self.learner = CodebookLearner(self.codebook)
        encode = [self.front, *self.encoder]
        frames = columns * config.tokenizer.patch
        latents = inputs_for([*self.decoder], 0, frames)
        first, last = inputs_for(encode, *latents)
        self.samples = last - first
        heard = outputs_of([self.front], first, last)
        given = outputs_of([*self.decoder], *latents)
        self._target = slice(-heard[0], frames - heard[0])
        self._output = slice(-given[0], frames - given[0])
        trained = [*self.encoder.parameters(), *self.decoder.parameters()]
        self._optimiser = torch.optim.AdamW(trained, betas=(0.9, 0.99), weight_decay=0.01)

    def start_from(self, codec: Codec) -> None:
        """Begin with the codec's weights; the codebook needs no k-means then."""
        self.encoder.load_state_dict(codec.encoder.state_dict())
        self.decoder.load_state_dict(codec.decoder.state_dict())
        self.learner.start_from(codec.codebook.vectors)

    def modules(self) -> dict[str, nn.Module]:
        return {"encoder": self.encoder, "decoder": self.decoder, "learner": self.learner}

    def averaged(self) -> dict[str, nn.Module]:
        return {"encoder": self.encoder, "decoder": self.decoder}

    def optimisers(self) -> dict[str, torch.optim.Optimizer]:
        return {"tokenizer": self._optimiser}

    def step(self, wave: Tensor, progress: float) -> dict[str, Tensor]:
        with torch.no_grad():
            mel = self.front(wave)
        with torch.autocast(wave.device.type, torch.bfloat16, enabled=self.bf16):
            latents = self.encoder(mel)
        quantised, commitment, codes = self.learner(latents.float())
        with torch.autocast(wave.device.type, torch.bfloat16, enabled=self.bf16):
            decoded = self.decoder(quantised)[..., self._output]
        distance = F.l1_loss(decoded.float(), mel[..., self._target])
        loss = distance + COMMITMENT * commitment
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(
            [*self.encoder.parameters(), *self.decoder.parameters()], 1.0
        )
        self._optimiser.step()
        used = codes.unique().numel() if codes is not None else 0
        return {
            "mel_l1": distance,
            "commitment": commitment,
            "gradient": norm,
            "codes_in_batch": torch.tensor(float(used)),
        }
