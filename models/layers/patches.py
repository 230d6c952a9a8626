"""Conversion of series to rows of patches and back, and access to rows of different lengths."""

from collections.abc import Sequence

import torch
from torch import Tensor

CPU_TOKENS = 8192  # tokens of context and forecast that are decoded together on a CPU


def to_patches(x: Tensor, patch_len: int) -> Tensor:
    """``[B, N·P, C]`` -> ``[B, N, C, P]``."""
    return x.unflatten(1, (-1, patch_len)).transpose(2, 3)


def from_patches(patches: Tensor) -> Tensor:
    """``[B, N, C, P]`` -> ``[B, N·P, C]``."""
    return patches.transpose(2, 3).flatten(1, 2)


def to_rows(x: Tensor, channels: str) -> Tensor:
    """``[B, L, C]``: unchanged with joint channels, else one row per variable, ``[B·C, L, 1]``."""
    return x if channels == "joint" else x.transpose(1, 2).flatten(0, 1).unsqueeze(-1)


def from_rows(rows: Tensor, channels: str, variables: int) -> Tensor:
    """The inverse of :func:`to_rows`."""
    return rows if channels == "joint" else rows.squeeze(-1).unflatten(0, (-1, variables)).transpose(1, 2)


def row_patches(x: Tensor, config) -> Tensor:
    """Rows of patches for a model with this configuration: ``[B, L, C]`` -> ``[rows, N, C, P]``."""
    return to_patches(to_rows(x, config.channels), config.input_token_len)


def row_series(series: Tensor, channels: str, variables: int) -> Tensor:
    """Noise keys of rows from those of windows: ``[B]`` -> ``[rows]``."""
    if channels == "joint":
        return series
    return (series.unsqueeze(1) * variables + torch.arange(variables, device=series.device)).flatten()


def paths(forecast: Tensor, samples: int, channels: str, variables: int) -> Tensor:
    """Forecast rows ``[rows·S, N, C, P]`` -> sample paths ``[B, S, H, C]``, or ``[B, H, C]`` if S is 1."""
    values = from_patches(forecast).unflatten(0, (-1, samples)).transpose(0, 1).flatten(0, 1)
    values = from_rows(values, channels, variables)
    return values if samples == 1 else values.unflatten(0, (samples, -1)).transpose(0, 1)


def quantiles(rows: Tensor | None, channels: str, variables: int) -> Tensor | None:
    """Quantiles of forecast rows ``[rows, N, C, P, levels]`` -> ``[B, H, C, levels]``."""
    if rows is None:
        return None
    return torch.stack([from_rows(from_patches(level), channels, variables) for level in rows.unbind(-1)], -1)


def padded(x: Tensor, patch_len: int) -> Tensor:
    """``[B, L, C]`` with NaN before it, so that its length is a multiple of the patch."""
    lack = -x.shape[1] % patch_len
    return torch.nn.functional.pad(x, (0, 0, lack, 0), value=torch.nan) if lack else x


def padding(tokens: Tensor) -> Tensor:
    """How many tokens ``[B, T, values]`` of each row are nothing but padding: ``[B]``."""
    return tokens[..., -1].isnan().sum(1)


def padded_patches(context: Tensor) -> Tensor | None:
    """How many patches of each row ``[B, N, C, P]`` are nothing but padding: ``[B]``; None where nothing is padded."""
    return padding(context[:, :, 0]) if context.isnan().any() else None


def shared(lengths: Tensor) -> int | None:
    """The common value of these lengths (on the host); None if they differ."""
    first = int(lengths[0])
    return first if len(lengths) == 1 or bool((lengths == first).all()) else None


def take(history: Tensor, first: Tensor, count: int) -> Tensor:
    """Patches first[b] … first[b] + count - 1 of every row: ``[B, capacity, C, P]`` -> ``[B, count, C, P]``."""
    start = shared(first)
    if start is not None:
        return history[:, start : start + count]
    return history[_ragged(history, first, count)]


def joined(parts: Sequence[Tensor], time: int, fill: float = torch.nan) -> Tensor:
    """One batch of parts whose length along the dimension ``time`` may differ: the shorter are filled at their end."""
    furthest = max(part.shape[time] for part in parts)
    filled = []
    for part in parts:
        shape = list(part.shape)
        shape[time] = furthest - part.shape[time]
        filled.append(torch.cat((part, part.new_full(shape, fill)), time) if shape[time] else part)
    return torch.cat(filled)


def put(history: Tensor, first: Tensor, patches: Tensor) -> None:
    """Write patches ``[B, count, C, P]`` at positions first[b] … first[b] + count - 1 of every row."""
    start = shared(first)
    if start is not None:
        history[:, start : start + patches.shape[1]] = patches
    else:
        history[_ragged(history, first, patches.shape[1])] = patches


def _ragged(history: Tensor, first: Tensor, count: int) -> tuple[Tensor, Tensor]:
    rows = torch.arange(len(history), device=history.device).unsqueeze(1)
    return rows, first.to(history.device).unsqueeze(1) + torch.arange(count, device=history.device)


def windows_of(patches: Tensor, length: int) -> Tensor:
    """All windows of N = ``length`` patches, row by row: ``[B, T, C, P]`` -> ``[B·(T - N + 1), N, C, P]``."""
    return patches.unfold(1, length, 1).movedim(-1, 2).flatten(0, 1)


def windows_together(x: Tensor, patch_len: int, steps: int, samples: int = 1) -> int:
    """How many of these windows ``[B, L, C]`` to decode together, in parts of similar size.

    On a CPU larger passes are not faster and take more memory.
    """
    if x.device.type != "cpu":
        return len(x)
    most = max(1, CPU_TOKENS // (samples * x.shape[2] * (x.shape[1] // patch_len + steps)))
    return -(-len(x) // -(-len(x) // most))
