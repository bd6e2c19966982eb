"""The single codebook: latents to tokens and back."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from melcap.errors import InputError
from melcap.ops import nearest_code


class Codebook(nn.Module):
    """`size` vectors of `dim` numbers; a buffer: it learns by moving averages, not gradients."""

    vectors: Tensor

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("vectors", torch.randn(size, dim))

    def tokens(self, latents: Tensor) -> Tensor:
        """[batch, dim, rows, columns] -> int32 [batch, rows, columns]."""
        batch, dim, rows, columns = latents.shape
        flat = latents.permute(0, 2, 3, 1).reshape(-1, dim)
        return nearest_code(flat, self.vectors).view(batch, rows, columns)

    def latents(self, tokens: Tensor) -> Tensor:
        """Integer [batch, rows, columns] -> [batch, dim, rows, columns].

        Tokens from elsewhere go through `check` first: on a GPU a wrong one ends the process.
        """
        return nn.functional.embedding(tokens.long(), self.vectors).permute(0, 3, 1, 2)

    def check(self, tokens: Tensor) -> None:
        """Raise `InputError` for a token that the codebook does not have."""
        if tokens.numel():
            low, high = (int(bound) for bound in torch.aminmax(tokens))
            if low < 0 or high >= len(self.vectors):
                raise InputError(f"tokens must be in 0..{len(self.vectors) - 1}, not {low}..{high}")
