"""The training of the codebook: k-means start, exponential moving averages, restart of dead codes.

The method is that of van den Oord et al. 2017 (arXiv 1711.00937), appendix A.1. Processes that
train together move one codebook by the latents of all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from melcap.model.layers import to_unit
from melcap.model.quantizer import Codebook
from melcap.ops import nearest_code
from melcap.training import ranks


class Coded(NamedTuple):
    """Latents with their tokens.

    Attributes:
        latents: [n, dim], in the order of crops, rows and columns, without a gradient.
        tokens: [n], or None in the warm-up of a codebook.
    """

    latents: Tensor
    tokens: Tensor | None


class EmaCodebook(nn.Module):
    """A quantiser for training, which moves its codebook towards the latents that it quantises.

    The first `warmup` batches pass through unquantised while their last latents are kept. k-means
    on those starts the codebook, because an EMA codebook that starts at random collapses. After
    that each entry is the moving average of the latents nearest to it. An entry whose average count
    per batch falls below `dead` is moved to a random latent of the batch.

    Args:
        codebook: the codebook that is trained.
        warmup: the number of batches before the k-means start.
        decay: the decay of the moving averages.
        dead: the average count per batch below which an entry counts as dead.
        unit: the latents come as `UnitLatents`, and entries are brought to the same length.
    """

    count: Tensor
    total: Tensor
    seen: Tensor

    def __init__(
        self,
        codebook: Codebook,
        warmup: int = 300,
        decay: float = 0.99,
        dead: float = 0.03,
        unit: bool = False,
    ) -> None:
        super().__init__()
        self.codebook = codebook
        self.warmup, self.decay, self.dead, self.unit = warmup, decay, dead, unit
        self.register_buffer("count", torch.ones(len(codebook.vectors)))
        self.register_buffer("total", codebook.vectors.clone())
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))
        self._kept: list[Tensor] = []
        # The same number as `seen`, so that a step need not wait for a GPU to read it.
        self._batches: int | None = None

    def forward(self, latents: Tensor) -> tuple[Tensor, Tensor, Coded]:
        """Quantise latents [batch, dim, rows, columns]. The codebook moves by `move` alone.

        Returns:
            The quantised latents with a straight-through gradient, the commitment loss (mean
            squared distance to the entries), and what `move` needs. The latents pass unquantised
            in the warm-up.
        """
        flat = latents.permute(0, 2, 3, 1).flatten(0, 2)
        if self._steps() < self.warmup:
            return latents, latents.new_zeros(()), Coded(flat.detach(), None)
        if self._kept:
            self._start(torch.cat(self._kept))
        vectors = self.codebook.vectors
        codes = nearest_code(flat.detach(), vectors)
        chosen = F.embedding(codes, vectors)
        commitment = F.mse_loss(flat, chosen)
        quantised = (flat + (chosen - flat).detach()).view_as(latents.permute(0, 2, 3, 1))
        return quantised.permute(0, 3, 1, 2), commitment, Coded(flat.detach(), codes)

    @torch.no_grad()
    def move(self, pieces: Sequence[Coded]) -> Tensor:
        """End a step: move the codebook towards the latents of the whole batch, of all processes.

        Args:
            pieces: what `forward` returned for each piece of this process's crops, in their order.

        Returns:
            How often each entry was nearest, [entries]; zeros in the warm-up.
        """
        self._batches = self._steps() + 1
        self.seen += 1
        flat = torch.cat([piece.latents for piece in pieces])
        tokens = [piece.tokens for piece in pieces if piece.tokens is not None]
        if not tokens:
            self._keep(ranks.gathered(flat))
            return torch.zeros_like(self.count)
        codes = torch.cat(tokens).long()
        hits = count_tokens(codes, len(self.codebook.vectors))
        self._move(flat, codes, hits)
        return hits

    @torch.no_grad()
    def start_from(self, vectors: Tensor) -> None:
        """Continue from a trained codebook [entries, dim], without warm-up and k-means.

        No entry counts as dead at first.
        """
        self.codebook.vectors.copy_(vectors)
        self.count.fill_(4 * self.dead or 1.0)  # a count of 0 would have no mean
        self.total.copy_(vectors * self.count[:, None])
        self.seen.fill_(self.warmup)
        self._batches = None

    def get_extra_state(self) -> dict[str, list[Tensor]]:
        """Return the latents kept for k-means: a run may be stopped during the warm-up."""
        return {"kept": self._kept}

    def set_extra_state(self, state: dict[str, list[Tensor]]) -> None:
        """Take over latents that `get_extra_state` returned."""
        self._kept = [part.to(self.codebook.vectors.device) for part in state["kept"]]
        self._batches = None  # the buffers were loaded before this

    def _steps(self) -> int:
        """Return the number of batches before this one."""
        if self._batches is None:
            self._batches = int(self.seen)
        return self._batches

    def _keep(self, flat: Tensor) -> None:
        self._kept.append(flat)
        if sum(len(part) for part in self._kept) > 12 * len(self.codebook.vectors):
            self._kept.pop(0)

    def _start(self, points: Tensor, rounds: int = 10) -> None:
        """Run k-means from random points; an entry without points moves to another random point."""
        size = len(self.codebook.vectors)
        centres = points[torch.randint(len(points), (size,), device=points.device)]
        count = points.new_ones(size)
        for _ in range(rounds):
            codes = nearest_code(points, centres).long()
            count = torch.bincount(codes, minlength=size).to(points.dtype)
            total = torch.zeros_like(centres).index_add_(0, codes, points)
            spare = points[torch.randint(len(points), (size,), device=points.device)]
            centres = torch.where(count[:, None] > 0, total / count.clamp(min=1)[:, None], spare)
        self.codebook.vectors.copy_(to_unit(centres, 1) if self.unit else centres)
        self.count.copy_((count / len(self._kept)).clamp(min=2 * self.dead))
        self.total.copy_(centres * self.count[:, None])
        # A GPU adds in any order, so that the same centres differ in rounding.
        ranks.take_first_([self.codebook.vectors, self.count, self.total])
        self._kept.clear()

    def _move(self, flat: Tensor, codes: Tensor, hits: Tensor) -> None:
        vectors = self.codebook.vectors
        # A latent of the whole batch is drawn for every entry: counting the dead ones would make a
        # step wait for the GPU. All processes draw the same, and the one that has it provides it.
        drawn = torch.randint(ranks.count() * len(flat), (len(vectors),), device=flat.device)
        fresh = flat[drawn % len(flat)]
        total = torch.zeros_like(vectors).index_add_(0, codes, flat)
        if ranks.count() > 1:
            own = drawn // len(flat) == ranks.rank()
            total, fresh = ranks.sum_(torch.stack([total, torch.where(own[:, None], fresh, 0)]))
        self.count.lerp_(hits.to(flat.dtype), 1 - self.decay)
        self.total.lerp_(total, 1 - self.decay)
        dead = self.count < self.dead
        self.count.masked_fill_(dead, 4 * self.dead)
        self.total.copy_(torch.where(dead[:, None], 4 * self.dead * fresh, self.total))
        mean = self.total / self.count[:, None]
        vectors.copy_(to_unit(mean, 1) if self.unit else mean)


def count_tokens(tokens: Tensor, entries: int) -> Tensor:
    """Return how often each entry of a codebook is among the tokens of all processes, [entries]."""
    return ranks.sum_(torch.bincount(tokens, minlength=entries))
