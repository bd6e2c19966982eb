"""Stage 1: encoder, codebook and mel decoder learn to give log-mel pictures back."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from melcap.codec import Codec
from melcap.model.mel import LogMel
from melcap.model.quantizer import Codebook
from melcap.model.stages import inputs_for, outputs_of, run
from melcap.model.tokenizer import mel_decoder, mel_encoder
from melcap.training import losses
from melcap.training.adversary import Adversary
from melcap.training.codebook import CodebookLearner
from melcap.training.config import TrainingConfig
from melcap.training.discriminators import MelDiscriminator
from melcap.training.optimisers import descend, optimisers_of


class Stage1:
    """L1 on the normalised log-mel plus commitment; the codebook learns by moving averages.

    Texture and a discriminator of pictures join it where the configuration says so. With
    `config.decoder_only` encoder and codebook stay as they are, and the decoder learns on tokens.

    Crops carry the context of encoder and decoder, so every supervised frame is computed exactly as
    it will be in use: `config.columns` columns of the picture are compared in each crop.
    """

    bf16 = False

    def __init__(self, config: TrainingConfig) -> None:
        self.config = config
        codec = config.codec
        self.front = LogMel(codec.mel)
        self.encoder = mel_encoder(codec)
        self.decoder = mel_decoder(codec)
        self.codebook = Codebook(codec.tokenizer.codebook_size, codec.tokenizer.codebook_dim)
        self.learner = CodebookLearner(
            *(self.codebook, config.codebook_warmup, config.codebook_decay, config.codebook_dead),
            unit=codec.tokenizer.unit_latents,
        )
        self.samples, self._target, self._output = self._layout(config.columns)
        self._run = run
        named = [*self.decoder.named_parameters("decoder")]
        if config.decoder_only:
            self.encoder.requires_grad_(False)
        else:
            named = [*self.encoder.named_parameters("encoder"), *named]
        self._parameters = [parameter for _, parameter in named]
        self._optimisers = optimisers_of("tokenizer", named, config)
        self.adversary: Adversary | None = None
        if config.discriminators:
            self.adversary = Adversary([MelDiscriminator(base=config.discriminators)], config)

    def _layout(self, columns: int) -> tuple[int, slice, slice]:
        """Samples of a crop, and where the supervised frames lie in its mel and in what is made."""
        encode = [self.front, *self.encoder]
        frames = columns * self.config.codec.tokenizer.patch_frames
        latents = inputs_for([*self.decoder], 0, frames)
        first, last = inputs_for(encode, *latents)
        heard = outputs_of([self.front], first, last)[0]
        given = outputs_of([*self.decoder], *latents)[0]
        return last - first, slice(-heard, frames - heard), slice(-given, frames - given)

    def start_from(self, codec: Codec, mel_decoder: Mapping[str, Tensor] | None = None) -> None:
        """Begin with the codec's weights; the codebook needs no k-means then.

        `mel_decoder` replaces the codec's own decoder, which was tuned for its vocoder and does not
        give mels any more.
        """
        self.encoder.load_state_dict(codec.encoder.state_dict())
        self.decoder.load_state_dict(mel_decoder or codec.decoder.state_dict())
        self.learner.start_from(codec.codebook.vectors)

    def modules(self) -> dict[str, nn.Module]:
        found: dict[str, nn.Module] = {"encoder": self.encoder, "decoder": self.decoder}
        found["learner"] = self.learner
        if self.adversary is not None:
            found["discriminators"] = self.adversary.judges
        return found

    def averaged(self) -> dict[str, nn.Module]:
        if self.config.decoder_only:
            return {"decoder": self.decoder}
        return {"encoder": self.encoder, "decoder": self.decoder}

    def optimisers(self) -> dict[str, torch.optim.Optimizer]:
        if self.adversary is None:
            return self._optimisers
        return self._optimisers | {"discriminators": self.adversary.optimiser}

    def compile(self, backend: str = "inductor") -> None:
        # A Chain that is compiled itself is taken apart, and each layer compiled alone.
        self._run = torch.compile(run, backend=backend, dynamic=False)
        if self.adversary is not None:
            self.adversary.compile(backend)

    def uncompile(self) -> None:
        self._run = run
        if self.adversary is not None:
            self.adversary.uncompile()

    def step(self, wave: Tensor, progress: float) -> dict[str, Tensor]:
        with torch.no_grad():
            mel = self.front(wave)
        quantised, commitment, codes = self._quantised(mel)
        with torch.autocast(wave.device.type, torch.bfloat16, enabled=self.bf16):
            decoded = self._run([*self.decoder], quantised)[..., self._output]
        decoded, target = decoded.float(), mel[..., self._target]
        loss, figures = self._objective(decoded, target, commitment)
        figures["gradient"] = descend(loss, self._parameters, self._optimisers, self.config.clip)
        used = loss.new_zeros(())
        if codes is not None:
            hits = torch.bincount(codes.flatten(), minlength=len(self.codebook.vectors))
            used = hits.count_nonzero().float()
        return figures | {"codes_in_batch": used}

    def _quantised(self, mel: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """The quantised latents of a picture, the commitment loss and, if there are any, tokens."""
        if self.config.decoder_only:
            with torch.no_grad():
                tokens = self.codebook.tokens(self._run([*self.encoder], mel))
                return self.codebook.latents(tokens), mel.new_zeros(()), tokens
        with torch.autocast(mel.device.type, torch.bfloat16, enabled=self.bf16):
            latents = self._run([*self.encoder], mel)
        quantised, commitment, codes = self.learner(latents.float())
        return quantised, commitment, codes

    def _objective(
        self, decoded: Tensor, target: Tensor, commitment: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """What is minimised, for pictures [batch, mels, frames], and the figures to log."""
        config = self.config
        # The picture's values are log magnitudes over `std`.
        loudness = losses.loudness_l1(decoded, target, config.loudness * config.codec.mel.std)
        figures = {"mel_l1": F.l1_loss(decoded, target), "loudness_l1": loudness}
        figures["commitment"] = commitment
        loss = loudness + config.commitment * commitment
        if config.texture_weight:
            figures["texture"] = losses.roughness_loss(decoded, target)
            loss = loss + config.texture_weight * figures["texture"]
        if self.adversary is not None:
            pictures = decoded[:, None], target[:, None].contiguous()
            figures["discriminator"] = self.adversary.learn(*pictures, self.bf16)
            adversarial, matching = self.adversary.persuade(*pictures, self.bf16)
            loss = config.spectral * loss
            loss = loss + config.adversarial * adversarial + config.features * matching
            figures |= {"adversarial": adversarial, "features": matching}
        return loss, figures

    def samples_for(self, columns: int) -> int:
        return self._layout(columns)[0]

    @torch.no_grad()
    def reconstruct(self, wave: Tensor, columns: int) -> tuple[Tensor, Tensor]:
        _, target, output = self._layout(columns)
        mel = self.front(wave)
        latents = run(self.encoder, mel)  # stage by stage: nothing is compiled for this length
        if self.config.decoder_only or int(self.learner.seen) > self.learner.warmup:
            latents = self.codebook.latents(self.codebook.tokens(latents))
        return mel[..., target], run(self.decoder, latents)[..., output]
