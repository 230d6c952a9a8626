"""Sessions: what a decodable model offers to the decoder, which knows nothing else of models.

A session holds B rows. Patches are ``[B, T, C, P]``; T is the same for all rows, and rows that need fewer are rolled
back. ``lengths`` lives on the host: after every round the decoder knows there what each row keeps.
"""

import torch
from torch import Tensor

from models.layers.normalisation import patch_moments, running_statistics


def shared(lengths: Tensor) -> int | None:
    """The number that all these, on the host, are; None where they differ."""
    first = int(lengths[0])
    return first if len(lengths) == 1 or bool((lengths == first).all()) else None


class Session:
    """The part that all sessions share."""

    lengths: Tensor  # [B], on the host: patches held by each row
    emitted_only = False  # whether a window slides over emitted values only, never over accepted proposals
    # targets: what the heads read (models/timer_xl.py, run) in the last pass of all rows
    features: tuple[Tensor, ...] = ()
    features_end: Tensor  # [B], on the host: patches held after that pass
    features_at: Tensor  # [B], on the host: after which of them the heads of a draft read

    def extend(self, patches: Tensor, want: int) -> tuple[Tensor, Tensor | None]:
        """Take in T patches per row and predict the patch after each of the last ``want`` of them.

        Returns:
            mean ``[B, want, C, P]`` and log-variance of the same shape (None for a model without one).
        """
        raise NotImplementedError

    def rollback(self, lengths: Tensor) -> None:
        """Keep the first ``lengths[b]`` patches of row b; what belongs to them (keys, statistics) is kept with them."""
        self.lengths = self.features_at = lengths.clone()

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows only, in this order."""
        raise NotImplementedError

    def last_features(self) -> tuple[Tensor, ...]:
        """Targets only: what the heads read at ``features_at``, each ``[B, 1, C, ...]``."""
        back = self.features_end - self.features_at
        same, device = shared(back), self.features[0].device
        if same is not None:
            return tuple(f.narrow(1, max(f.shape[1] - 1 - same, 0), 1) for f in self.features)
        rows, back = torch.arange(len(back), device=device), back.to(device)
        return tuple(f[rows, (f.shape[1] - 1 - back).clamp(min=0)].unsqueeze(1) for f in self.features)

    def repeat(self, samples: int) -> None:
        """Each row becomes ``samples`` consecutive ones."""
        self.keep(torch.arange(len(self.lengths)).repeat_interleave(samples))

    def propose(self, pending: Tensor, k: int, draw) -> tuple[Tensor, Tensor, Tensor | None]:
        """Draft k patches after the pending ones.

        Args:
            pending: ``[B, T, C, P]``, what the rows have not taken in yet.
            k: number of proposals, at least 1. The last one is not taken in.
            draw: ``draw(i, mean, log_var) -> patches``: how proposals, from the i-th on, are made from their
                distributions, ``[B, n, C, P]``.

        Returns:
            patches, means and log-variances (or None), each ``[B, k, C, P]``.
        """
        proposals = []
        for i in range(k):
            mean, log_var = self.extend(pending, 1)
            pending = draw(i, mean, log_var)
            proposals.append((pending, mean, log_var))
        patches, means, log_vars = zip(*proposals, strict=True)
        return torch.cat(patches, 1), torch.cat(means, 1), None if log_vars[0] is None else torch.cat(log_vars, 1)


class CachedSession(Session):
    """Keys, values and statistics of all past patches in preallocated tensors; a step costs its new patches only.

    Args:
        model: a Timer-XL network (``models/timer_xl.py``).
        context: ``[B, N, C, P]``. It is not taken in, but with ``norm='window'`` it sets the statistics.
        capacity: patches a row can hold, proposals included.
        attention_window: how many patches back a query sees; 0 means all.
    """

    def __init__(self, model, context: Tensor, capacity: int, attention_window: int = 0):
        batch, _, variables, _ = context.shape
        config = model.config
        self.model, self.capacity, self.tables = model, capacity, model.tables(capacity, variables, attention_window)
        self.lengths = self.features_end = self.features_at = torch.zeros(batch, dtype=torch.long)
        self.even = 0  # what all lengths are; None where they differ
        # zeros, not empty: masked slots enter the softmax with weight 0, and 0 times garbage may be NaN
        size = (batch, model.n_heads, capacity * variables, model.head_dim)
        self.keys = [self.tables.seen.new_zeros(size) for _ in model.blocks.attn_layers]
        self.values = [self.tables.seen.new_zeros(size) for _ in model.blocks.attn_layers]
        self.window = config.seq_len // config.input_token_len
        self.static = model.compiled_pass is not None
        self.moments = context.new_zeros(batch, self.window - 1 + capacity, variables, 2)
        self.level, self.scale = context.new_zeros(batch, 1, variables), context.new_ones(batch, 1, variables)
        if config.norm == "window":
            self.level, self.scale = model.statistics(context)

    def restart(self, context: Tensor, rows: Tensor) -> None:
        """These rows start anew, empty, with the statistics of this context ``[len(rows), N, C, P]``."""
        self.lengths = self.lengths.index_fill(0, rows, 0)
        self.even = shared(self.lengths)
        if self.model.config.norm == "window":
            self.level[rows], self.scale[rows] = self.model.statistics(context)

    def extend(self, patches: Tensor, want: int, rows: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """As :meth:`Session.extend`; with ``rows``, only these rows take in patches ``[len(rows), T, C, P]``."""
        count, device = patches.shape[1], patches.device
        lengths = self.lengths if rows is None else self.lengths[rows]
        static = self.static and rows is None
        # Rows in step share their positions and mask, and are written as one slice.
        start = None if static or rows is not None else self.even
        if start is not None:
            row, patch, keys, least = None, slice(start, start + count), start + count, start
        else:
            row = (torch.arange(len(self.lengths)) if rows is None else rows).to(device).unsqueeze(1)
            patch, least = lengths.to(device).unsqueeze(1) + torch.arange(count, device=device), int(lengths.min())
            keys = self.capacity if static else int(lengths.max()) + count
        some = least < self.window - 1 and self.model.config.norm == "causal"
        advance = self.model.compiled_pass if static else CachedSession.advance
        features, moments = advance(
            self, patches, row, patch, keys, want, lengths.to(device) if some else None, whole=rows is None
        )
        if rows is None:
            self.lengths, self.even = self.lengths + count, None if self.even is None else self.even + count
            self.features, self.features_at, self.features_end = features, self.lengths, self.lengths
        else:
            self.lengths = self.lengths.index_add(0, rows, torch.full_like(rows, count))
            self.even = shared(self.lengths)
        return moments

    def rollback(self, lengths: Tensor) -> None:
        super().rollback(lengths)
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
        """The arithmetic of :meth:`extend`: what the heads read, and mean and log-variance.

        Args:
            row: ``[b, 1]``, and ``patch``, ``[b, T]``: where the patches go; None and a slice for rows in step.
            keys: how many patches are attended to.
            first: see :func:`running_statistics`.
            whole: whether the rows are all rows.
        """
        count, variables, before = patches.shape[1], patches.shape[2], self.window - 1

        def store(layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
            held = []
            for buffer, new in ((self.keys[layer], key), (self.values[layer], value)):
                if row is None:
                    buffer[:, :, patch.start * variables : patch.stop * variables] = new
                else:
                    by_time = buffer.unflatten(2, (-1, variables)).permute(0, 2, 3, 1, 4)
                    by_time[row, patch] = new.unflatten(2, (-1, variables)).permute(0, 2, 3, 1, 4)
                buffer = buffer[:, :, : keys * variables]
                held.append(buffer if whole else buffer[row.squeeze(1)])
            return held[0], held[1]

        if self.model.config.norm == "causal":
            if row is None:
                self.moments[:, before + patch.start : before + patch.stop] = patch_moments(patches)
                moments = self.moments[:, patch.start : before + patch.stop]
            else:
                self.moments[row, before + patch] = patch_moments(patches)
                moments = self.moments[row, patch[:, :1] + torch.arange(before + count, device=patches.device)]
            level, scale = running_statistics(moments, self.window, first)
        else:
            level, scale = (s if whole else s[row.squeeze(1)] for s in (self.level, self.scale))
        features = self.model.run(patches, level, scale, self.tables, patch, keys, want, store)
        return features, self.model.emit(*features)

    def keep(self, rows: Tensor) -> None:
        self.lengths = self.lengths[rows]
        self.even = shared(self.lengths)
        self.features_end, self.features_at = self.features_end[rows], self.features_at[rows]
        self.static = False  # a new number of rows would be compiled anew
        rows = rows.to(self.level.device)
        self.keys = [k[rows] for k in self.keys]
        self.values = [v[rows] for v in self.values]
        self.moments, self.level, self.scale = self.moments[rows], self.level[rows], self.scale[rows]
        self.features = tuple(f[rows] for f in self.features)
