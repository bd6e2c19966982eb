"""The single codebook, which turns latents into tokens and back."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from melcap.errors import InputError
from melcap.ops import nearest_code


class Codebook(nn.Module):
    """A codebook of `size` entries of `dim` numbers.

    The entries are a buffer, because training updates them by moving averages and not by gradients.
    """

    vectors: Tensor

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        # Drawn on the CPU, because on the meta device this would import sympy.
        vectors = torch.randn(size, dim, device="cpu")
        self.register_buffer("vectors", vectors.to(torch.get_default_device()))

    def tokens(self, latents: Tensor) -> Tensor:
        """Return the indices of the entries nearest to latents, int32 [batch, rows, columns].

        Args:
            latents: floating point [batch, dim, rows, columns].
        """
        batch, dim, rows, columns = latents.shape
        flat = latents.permute(0, 2, 3, 1).reshape(-1, dim)
        return nearest_code(flat, self.vectors).view(batch, rows, columns)

    def latents(self, tokens: Tensor) -> Tensor:
        """Return the entries of tokens, [batch, dim, rows, columns].

        Args:
            tokens: integers [batch, rows, columns]. Call `check` first for tokens from elsewhere:
                on a GPU, a token outside the codebook makes every later call of the process fail.
        """
        return nn.functional.embedding(tokens.long(), self.vectors).permute(0, 3, 1, 2)

    def check(self, tokens: Tensor) -> None:
        """Raise an error for tokens outside the codebook.

        Raises:
            InputError: with the lowest and the highest token.
        """
        if tokens.numel():
            low, high = torch.stack(torch.aminmax(tokens)).tolist()  # read at once: one wait
            if low < 0 or high >= len(self.vectors):
                raise InputError(f"tokens must be in 0..{len(self.vectors) - 1}, not {low}..{high}")
