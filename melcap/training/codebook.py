"""How the codebook learns: k-means start, exponential moving averages, restart of dead codes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from melcap.model.layers import to_unit
from melcap.model.quantizer import Codebook
from melcap.ops import nearest_code


class CodebookLearner(nn.Module):
    """Quantises latents for training and moves the codebook towards them.

    The first `warmup` batches pass through unquantised while their last latents are kept; k-means
    on those starts the codebook (an EMA codebook started at random collapses). After that each code
    is the moving average of the latents nearest to it, and a code whose average count per batch
    falls below `dead` is put on a random latent of the batch. With `unit` the latents come as
    `UnitLatents`, and codes are kept as long as they are.
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
        self._batches: int | None = None  # as `seen`: a step need not wait for a GPU to say it

    def forward(self, latents: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """[batch, dim, rows, columns] -> quantised latents (straight-through gradient), commitment
        loss (mean squared distance to the code), and the tokens (None while warming up)."""
        flat = latents.permute(0, 2, 3, 1).flatten(0, 2)
        batch = int(self.seen) if self._batches is None else self._batches
        self._batches = batch + 1
        self.seen += 1
        if batch < self.warmup:
            self._keep(flat.detach())
            return latents, latents.new_zeros(()), None
        if self._kept:
            self._start(torch.cat(self._kept))
        vectors = self.codebook.vectors
        codes = nearest_code(flat.detach(), vectors)
        chosen = F.embedding(codes, vectors)
        commitment = F.mse_loss(flat, chosen)
        self._move(flat.detach(), codes.long())
        quantised = (flat + (chosen - flat).detach()).view_as(latents.permute(0, 2, 3, 1))
        return quantised.permute(0, 3, 1, 2), commitment, codes

    @torch.no_grad()
    def start_from(self, vectors: Tensor) -> None:
        """Go on from a trained codebook: all codes alive, no warm-up, no k-means."""
        self.codebook.vectors.copy_(vectors)
        self.count.fill_(4 * self.dead)
        self.total.copy_(vectors * self.count[:, None])
        self.seen.fill_(self.warmup)
        self._batches = None

    def get_extra_state(self) -> dict[str, list[Tensor]]:
        """The latents kept for k-means: a run may be stopped before it starts."""
        return {"kept": self._kept}

    def set_extra_state(self, state: dict[str, list[Tensor]]) -> None:
        self._kept = [part.to(self.codebook.vectors.device) for part in state["kept"]]
        self._batches = None  # this comes behind the buffers

    def _keep(self, flat: Tensor) -> None:
        self._kept.append(flat)
        if sum(len(part) for part in self._kept) > 12 * len(self.codebook.vectors):
            self._kept.pop(0)

    def _start(self, points: Tensor, rounds: int = 10) -> None:
        """k-means from random points; a code left empty goes to another random point."""
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
        self._kept.clear()

    @torch.no_grad()
    def _move(self, flat: Tensor, codes: Tensor) -> None:
        vectors = self.codebook.vectors
        hits = torch.bincount(codes, minlength=len(vectors)).to(flat.dtype)
        self.count.lerp_(hits, 1 - self.decay)
        self.total.lerp_(torch.zeros_like(vectors).index_add_(0, codes, flat), 1 - self.decay)
        # Drawn for every code: to count the dead ones, a step would have to wait for the GPU.
        fresh = flat[torch.randint(len(flat), (len(vectors),), device=flat.device)]
        dead = self.count < self.dead
        self.count.masked_fill_(dead, 4 * self.dead)
        self.total.copy_(torch.where(dead[:, None], 4 * self.dead * fresh, self.total))
        mean = self.total / self.count[:, None]
        vectors.copy_(to_unit(mean, 1) if self.unit else mean)
