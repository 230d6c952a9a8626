"""Rotary position embedding as Timer-XL uses it (Su et al. 2021; Liu et al. 2024)."""

import torch
from torch import Tensor

BASE = 10000.0


def turns(index: Tensor, head_dim: int, width: int, base: float = BASE) -> Tensor:
    """Rotary embeddings at these positions, complex numbers of modulus 1: ``[...]`` -> ``[..., head_dim / 2]``.

    Of a head's interleaved pairs (0, 1), (2, 3), … the first ``width / 2`` are rotated, pair i by the angle
    ``index * base ** (-2 i / width)``; the others are unchanged.
    """
    # float64, because the angles of late positions lose precision in float32
    speed = base ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    angle = index.double().unsqueeze(-1) * torch.cat((speed, speed.new_zeros(head_dim // 2 - len(speed))))
    return torch.polar(torch.ones_like(angle), angle)


def rotate(x: Tensor, turn: Tensor) -> Tensor:
    """Apply rotations ``[(B,) tokens, 1, D / 2]`` to x ``[B, tokens, H, D]``."""
    pairs = x.to(turn.real.dtype).unflatten(-1, (-1, 2))  # bfloat16 has no complex type
    return torch.view_as_real(torch.view_as_complex(pairs) * turn).flatten(-2).to(x.dtype)
