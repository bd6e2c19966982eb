"""The training of the codebook: k-means start, exponential moving averages, restart of dead codes.

The method is that of van den Oord et al. 2017 (arXiv 1711.00937), appendix A.1.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from melcap.model.layers import to_unit
from melcap.model.quantizer import Codebook
from melcap.ops import nearest_code


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

    def forward(self, latents: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Quantise latents [batch, dim, rows, columns] and move the codebook.

        Returns:
            The quantised latents with a straight-through gradient, the commitment loss (mean
            squared distance to the entries), and the tokens [batch * rows * columns], or None
            during the warm-up.
        """
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
        self._kept.clear()

    @torch.no_grad()
    def _move(self, flat: Tensor, codes: Tensor) -> None:
        vectors = self.codebook.vectors
        hits = torch.bincount(codes, minlength=len(vectors)).to(flat.dtype)
        self.count.lerp_(hits, 1 - self.decay)
        self.total.lerp_(torch.zeros_like(vectors).index_add_(0, codes, flat), 1 - self.decay)
        # A latent is drawn for every entry: counting the dead ones would make a step wait for the
        # GPU.
        fresh = flat[torch.randint(len(flat), (len(vectors),), device=flat.device)]
        dead = self.count < self.dead
        self.count.masked_fill_(dead, 4 * self.dead)
        self.total.copy_(torch.where(dead[:, None], 4 * self.dead * fresh, self.total))
        mean = self.total / self.count[:, None]
        vectors.copy_(to_unit(mean, 1) if self.unit else mean)
