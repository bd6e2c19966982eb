"""Compare upsample_conv1d with cuDNN's transposed convolution."""

from __future__ import annotations

import torch
from torch import Tensor

from cases.case import Case, Contenders
from melcap.ops import upsample_conv1d
from melcap.ops.upsample_conv1d import upsample_conv1d_reference


def cases() -> list[Case]:
    """Return the cases that are measured."""
    found = []
    for name, batch, channels_in, channels_out, steps, stride, kernel in (
        ("lite 1 x 0.1 s", 1, 256, 128, 19, 4, 8),
        ("lite 1 x 10 s", 1, 256, 128, 1724, 4, 8),
        ("lite 64 x 10 s", 64, 256, 128, 1724, 4, 8),
        ("512 to 256, x8", 8, 512, 256, 860, 8, 16),
        ("256 to 128, x8", 8, 256, 128, 6880, 8, 16),
        ("128 to 64, x2", 8, 128, 64, 55040, 2, 4),
        ("64 to 32, x2", 8, 64, 32, 110080, 2, 4),
        ("32 to 32, x5", 8, 32, 32, 20000, 5, 10),
    ):
        outputs = batch * steps * stride * channels_out
        found.append(
            Case(
                "upsample_conv1d",
                name,
                torch.float32,
                4.0 * (batch * channels_in * steps + channels_in * channels_out * kernel + outputs),
                2.0 * outputs * channels_in * kernel / stride,
                "tf32 FLOP/s",
                lambda b=batch, i=channels_in, o=channels_out, t=steps, s=stride, k=kernel: (
                    torch.randn(b, i, t, device="cuda"),
                    torch.randn(i, o, k, device="cuda") / (i * k / s) ** 0.5,
                    torch.randn(o, device="cuda"),
                    s,
                    "snake",
                    torch.rand(i, device="cuda") + 0.5,
                    None,
                ),
                lambda x, w, b, s, act, alpha, res: upsample_conv1d(
                    x, w, b, s, activation=act, alpha=alpha, residual=res
                ),
                _peers,
                lambda x, w, b, s, act, alpha, res: upsample_conv1d_reference(
                    x.double(), w.double(), b.double(), s, act, alpha.double(), res
                ),
            )
        )
    return found


def _peers(
    x: Tensor, weight: Tensor, bias: Tensor, stride: int, activation: str, alpha: Tensor, _: None
) -> Contenders:
    def eager() -> Tensor:
        return upsample_conv1d_reference(x, weight, bias, stride, activation, alpha, None)

    return {"cuDNN": eager, "compiled": torch.compile(eager)}
