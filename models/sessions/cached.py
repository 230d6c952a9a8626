"""Sessions with cached keys and values."""

import torch
from torch import Tensor

from leapcast.models.layers.normalisation import patch_moments, running_statistics
from leapcast.models.layers.patches import padded_patches, shared
from leapcast.models.sessions.base import BaseSession, Moments, chosen


class CachedSession(BaseSession):
    """Keys, values and statistics of all past patches in preallocated tensors; a pass computes new patches only.

    Args:
        model: has ``tables``, ``tokens`` (per patch and variable), ``run`` and ``emit`` as the Timer-XL network
            (``models/timer_xl.py``).
        context: ``[B, N, C, P]``, shorter rows padded on the left by patches of NaN. It is not processed, but with
            ``norm='window'`` it sets the statistics.
        capacity: most patches per row, proposals included.
        attention_window: how many patches back a query sees; 0 means all.
    """

    statistics_held: tuple[str, ...] = ("moments", "level", "scale")  # names of tensors with an entry per row
    reads_padding = False  # whether the model itself tells padding from values

    def __init__(self, model, context: Tensor, capacity: int, attention_window: int = 0):
        batch, _, variables, _ = context.shape
        config = model.config
        self.model, self.capacity, self.tables = model, capacity, model.tables(capacity, variables, attention_window)
        self.lengths = self.features_end = self.features_at = torch.zeros(batch, dtype=torch.long)
        self.even: int | None = 0  # the common length of all rows; None where they differ
        # zeros, because masked entries have weight 0 in the attention, and 0 times an uninitialised value may be NaN
        self.width = variables * model.tokens  # tokens per patch
        size = (batch, model.n_heads, capacity * self.width, model.head_dim)
        self.keys = [self.tables.like.new_zeros(size) for _ in range(config.e_layers)]
        self.values = [self.tables.like.new_zeros(size) for _ in range(config.e_layers)]
        self.window = config.seq_len // config.input_token_len
        self.before = None if self.reads_padding else padded_patches(context)
        self.padding = self.lengths if self.before is None else self.before.cpu()  # on the host, as the lengths are
        self.tables = self.tables.padded(self.before)
        self.static = model.compiled_pass is not None and self.before is None
        self.open_statistics(context)

    def open_statistics(self, context: Tensor) -> None:
        """Make the tensors of ``statistics_held``."""
        batch, _, variables, _ = context.shape
        self.moments = context.new_zeros(batch, self.window - 1 + self.capacity, variables, 2)
        self.level, self.scale = context.new_zeros(batch, 1, variables), context.new_ones(batch, 1, variables)
        if self.model.config.norm == "window":
            self.level, self.scale = self.model.window_statistics(context, self.before)

    def restart(self, context: Tensor, rows: Tensor) -> None:
        """Empty these rows and set their statistics from this context ``[len(rows), N, C, P]``."""
        self.lengths = self.lengths.index_fill(0, rows, 0)
        self.even = shared(self.lengths)
        if self.model.config.norm == "window":
            before = None if self.before is None else self.before[rows]
            self.level[rows], self.scale[rows] = self.model.window_statistics(context, before)

    def extend(self, patches: Tensor, want: int, rows: Tensor | None = None) -> Moments:
        """As :meth:`Session.extend`; with ``rows``, only these rows process patches ``[len(rows), T, C, P]``."""
        count, device = patches.shape[1], patches.device
        lengths = self.lengths if rows is None else self.lengths[rows]
        first = lengths
        if self.before is not None:
            patches = patches.nan_to_num(0)
            first = lengths - (self.padding if rows is None else self.padding[rows])
        static = self.static and rows is None
        # rows of equal length share positions and mask, and are written as one slice
        start = None if static or rows is not None else self.even
        row: Tensor | None
        patch: slice | Tensor
        if start is not None:
            row, patch, keys = None, slice(start, start + count), start + count
        else:
            row = (torch.arange(len(self.lengths)) if rows is None else rows).to(device).unsqueeze(1)
            patch = lengths.to(device).unsqueeze(1) + torch.arange(count, device=device)
            keys = self.capacity if static else int(lengths.max()) + count
        some = self.model.config.norm == "causal" and int(first.min()) < self.window - 1
        advance = self.model.compiled_pass if static else CachedSession.advance
        features, moments = advance(
            self, patches, row, patch, keys, want, first.to(device) if some else None, whole=rows is None
        )
        if rows is None:
            self.lengths, self.even = self.lengths + count, None if self.even is None else self.even + count
            self.features, self.features_at, self.features_end = features, self.lengths, self.lengths
            self.moments_out = moments
        else:
            self.lengths = self.lengths.index_add(0, rows, torch.full_like(rows, count))
            self.even = shared(self.lengths)
        return moments

    def rollback(self, lengths: Tensor, read: Tensor | None = None) -> None:
        super().rollback(lengths, read)
        self.even = shared(lengths)

    def advance(
        self,
        patches: Tensor,
        row: Tensor | None,
        patch: slice | Tensor,
        keys: int,
        want: int,
        first: Tensor | None,
        whole: bool,
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor, Tensor | None]]:
        """The computation of :meth:`extend`: inputs of the heads, and mean and log-variance.

        Args:
            row: ``[b, 1]``, rows to write to; None for rows of equal length.
            patch: positions to write to, ``[b, T]``; a slice for rows of equal length.
            keys: number of patches attended to.
            first: see :func:`running_statistics`.
            whole: whether all rows are processed.
        """
        width = self.width

        def store(layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
            held = []
            for buffer, new in ((self.keys[layer], key), (self.values[layer], value)):
                if isinstance(patch, slice):
                    buffer[:, :, patch.start * width : patch.stop * width] = new
                else:
                    by_time = buffer.unflatten(2, (-1, width)).permute(0, 2, 3, 1, 4)
                    by_time[row, patch] = new.unflatten(2, (-1, width)).permute(0, 2, 3, 1, 4)
                buffer = buffer[:, :, : keys * width]
                held.append(buffer if whole or row is None else buffer[row.squeeze(1)])
            return held[0], held[1]

        level, scale = self.statistics(patches, row, patch, first, whole)
        tables = self.tables if whole or row is None else self.tables.of(row.squeeze(1))
        features = self.model.run(patches, level, scale, tables, patch, keys, want, store)
        return features, self.emit(features)

    def statistics(
        self, patches: Tensor, row: Tensor | None, patch: slice | Tensor, first: Tensor | None, whole: bool
    ) -> tuple[Tensor, Tensor]:
        """Level and scale of new patches; arguments as in :meth:`advance`."""
        count, before = patches.shape[1], self.window - 1
        if self.model.config.norm == "causal":
            if isinstance(patch, slice):
                self.moments[:, before + patch.start : before + patch.stop] = patch_moments(patches)
                moments = self.moments[:, patch.start : before + patch.stop]
            else:
                self.moments[row, before + patch] = patch_moments(patches)
                moments = self.moments[row, patch[:, :1] + torch.arange(before + count, device=patches.device)]
            return running_statistics(moments, self.window, first)
        if whole or row is None:
            return self.level, self.scale
        return self.level[row.squeeze(1)], self.scale[row.squeeze(1)]

    def emit(self, features: tuple[Tensor, ...]) -> Moments:
        """Mean and log-variance from the inputs of the heads."""
        return self.model.emit(*features)

    def keep(self, rows: Tensor) -> None:
        self.lengths, self.padding = self.lengths[rows], self.padding[rows]
        self.even = shared(self.lengths)
        self.features_end, self.features_at = self.features_end[rows], self.features_at[rows]
        self.static = False  # another number of rows would need recompilation
        rows = rows.to(self.keys[0].device)
        self.tables, self.before = self.tables.of(rows), None if self.before is None else self.before[rows]
        self.keys = [k[rows] for k in self.keys]
        self.values = [v[rows] for v in self.values]
        for name in self.statistics_held:
            setattr(self, name, getattr(self, name)[rows])
        self.features = tuple(f[rows] for f in self.features)
        self.moments_out = chosen(self.moments_out, rows)
