"""How a forecast is continued past one patch (the rollout), and where variables become rows."""

import re
from pathlib import Path

import torch
from torch import Tensor

from models.layers.cache import Session, shared
from utils.errors import UserError

WITHOUT_ASKING = 2**28  # bytes that a forecast may take, however many are free
CPU_TOKENS = 8192  # of context and forecast that are decoded together on a CPU
MOST_TOKENS = 16384  # that attend to each other: beyond, their mask alone takes gigabytes


def to_rows(x: Tensor, channels: str) -> Tensor:
    """``[B, L, C]``: as it is with joint channels, else every variable a row of its own, ``[B·C, L, 1]``."""
    return x if channels == "joint" else x.transpose(1, 2).flatten(0, 1).unsqueeze(-1)


def from_rows(rows: Tensor, channels: str, variables: int) -> Tensor:
    """The inverse of :func:`to_rows`."""
    return rows if channels == "joint" else rows.squeeze(-1).unflatten(0, (-1, variables)).transpose(1, 2)


def row_series(series: Tensor, channels: str, variables: int) -> Tensor:
    """The number that keys a row's noise, from its window's: ``[B]`` -> ``[rows]``."""
    if channels == "joint":
        return series
    return (series.unsqueeze(1) * variables + torch.arange(variables, device=series.device)).flatten()


def take(history: Tensor, first: Tensor, count: int) -> Tensor:
    """Patches first[b] … first[b] + count - 1 of every row: ``[B, capacity, C, P]`` -> ``[B, count, C, P]``."""
    start = shared(first)
    if start is not None:
        return history[:, start : start + count]
    return history[_ragged(history, first, count)]


def put(history: Tensor, first: Tensor, patches: Tensor) -> None:
    """Write patches ``[B, count, C, P]`` to where :func:`take` would read them."""
    start = shared(first)
    if start is not None:
        history[:, start : start + patches.shape[1]] = patches
    else:
        history[_ragged(history, first, patches.shape[1])] = patches


def windows_together(x: Tensor, patch_len: int, steps: int, samples: int = 1) -> int:
    """How many of these windows ``[B, L, C]`` are best decoded together, in parts of like size.

    A CPU gains nothing from larger passes, which would only take more memory.
    """
    if x.device.type != "cpu":
        return len(x)
    most = max(1, CPU_TOKENS // (samples * x.shape[2] * (x.shape[1] // patch_len + steps)))
    return -(-len(x) // -(-len(x) // most))


def windows_of(patches: Tensor, length: int) -> Tensor:
    """All windows of a length, those of a row one after the other: ``[B, T, C, P]`` -> ``[B·(T - N + 1), N, C, P]``."""
    return patches.unfold(1, length, 1).movedim(-1, 2).flatten(0, 1)


def _ragged(history: Tensor, first: Tensor, count: int) -> tuple[Tensor, Tensor]:
    rows = torch.arange(len(history), device=history.device).unsqueeze(1)
    return rows, first.to(history.device).unsqueeze(1) + torch.arange(count, device=history.device)


class SlidingSession(Session):
    """The window slides and is run anew for every patch, as the public code does: for any Timer-XL.

    Args:
        model: offers ``features(windows, want)`` and ``emit``.
        context: ``[B, N, C, P]``; its length is that of the window.
        capacity: patches a row can hold, proposals included.
        lean: compute the last position's output only; the public code computes every position's.
    """

    emitted_only = True

    def __init__(self, model, context: Tensor, capacity: int, lean: bool = True):
        self.model, self.window, self.lean = model, context.shape[1], lean
        self.history = context.new_zeros(len(context), capacity, *context.shape[2:])
        self.lengths = self.features_end = self.features_at = torch.zeros(len(context), dtype=torch.long)

    def extend(self, patches: Tensor, want: int) -> tuple[Tensor, Tensor | None]:
        put(self.history, self.lengths, patches)
        self.lengths = self.lengths + patches.shape[1]
        span = take(self.history, self.lengths - self.window - want + 1, self.window + want - 1)
        features = self.model.features(windows_of(span, self.window), 1 if self.lean else None)
        mean, log_var = self.model.emit(*features)
        self.features = tuple(f[:, -1].unflatten(0, (-1, want)) for f in features)
        self.features_end = self.features_at = self.lengths
        return tuple(None if t is None else t[:, -1].unflatten(0, (-1, want)) for t in (mean, log_var))

    def keep(self, rows: Tensor) -> None:
        self.lengths = self.lengths[rows]
        self.features_end, self.features_at = self.features_end[rows], self.features_at[rows]
        rows = rows.to(self.history.device)
        self.history, self.features = self.history[rows], tuple(f[rows] for f in self.features)


class BlockSession(Session):
    """A window of emitted values slides under a draft that forecasts a block of patches in one call.

    Args:
        model: offers ``forecast(windows)``, at least one patch at a time, and its window, ``config.seq_len``.
        context, capacity: see :class:`SlidingSession`.
    """

    emitted_only = True

    def __init__(self, model, context: Tensor, capacity: int):
        self.model, self.window = model, model.config.seq_len // model.config.input_token_len
        if context.shape[1] < self.window:
            raise UserError(f"this draft reads {model.config.seq_len} time steps: give at least that `context`")
        self.history = context.new_zeros(len(context), capacity, *context.shape[2:])
        self.lengths = torch.zeros(len(context), dtype=torch.long)

    def extend(self, patches: Tensor, want: int) -> tuple[Tensor, None]:
        """Take in patches; the mean of the next one (``want`` is 1)."""
        return self.propose(patches, want, mean_draw)[1], None

    def propose(self, pending: Tensor, k: int, draw) -> tuple[Tensor, Tensor, None]:
        patches, means, done = [], [], 0
        while done < k:
            put(self.history, self.lengths, pending)
            self.lengths = self.lengths + pending.shape[1]
            mean = self.model.forecast(take(self.history, self.lengths - self.window, self.window))[:, : k - done]
            pending = draw(done, mean, None)
            patches.append(pending)
            means.append(mean)
            done += mean.shape[1]
        return torch.cat(patches, 1), torch.cat(means, 1), None

    def keep(self, rows: Tensor) -> None:
        self.lengths, self.history = self.lengths[rows], self.history[rows.to(self.history.device)]


def cacheable(config, variables: int) -> bool:
    """Whether keys and values of the past stay valid: not where a variable's rotary index moves with the length."""
    return config.rope_index == "time" or config.channels == "independent" or variables == 1


def check_rollout(model, variables: int, how) -> None:
    """Refuse a rollout (``how.rollout`` and its options) that a model of this configuration cannot follow exactly."""
    rollout, renorm_every = how.rollout, how.renorm_every
    if rollout == "cached" and not cacheable(model, variables):
        raise UserError("a cache is not exact for several variables under `rope_index` flat: use `rollout` sliding")
    if renorm_every and (rollout, model.norm) != ("cached", "window"):
        raise UserError("`renorm_every` is for `rollout` cached of a target with `norm` window: leave it at 0")
    if how.attention_window and rollout == "sliding":
        raise UserError("`attention_window` is for `rollout` cached; a sliding window is as long as the context")


def check_width(channels: str, variables: int, patches: int) -> None:
    """Refuse more variables than can attend to each other over so many patches."""
    if channels == "joint" and variables * patches > MOST_TOKENS:
        raise UserError(
            f"{variables} variables together over {patches} patches are too many: choose by `columns`, or take a model "
            "trained with `channels` independent"
        )


def check_room(model, how, x: Tensor, steps: int, samples: int, together: int) -> None:
    """Refuse forecasts that the memory has no room for, before any of it is taken.

    Args:
        model: configuration of the target.
        how: ``k`` and ``rollout``.
        x: ``[B, L, C]``, of which ``together`` windows are decoded at a time.
        steps: patches to forecast, and ``samples`` paths of each window.
    """
    patch, variables = model.input_token_len, x.shape[2]
    context, proposed = x.shape[1] // patch, min(how.k, steps - 1)
    joint = model.channels == "joint"
    rows, width = min(together, len(x)) * samples * (1 if joint else variables), variables if joint else 1
    length = context + steps + proposed  # patches that a row holds
    # a model that does not tell its sizes has no more than its patches
    layers, wide, heads, wider = (getattr(model, name, 0) for name in ("e_layers", "d_model", "n_heads", "d_ff"))
    cache = 2 * layers * wide if how.rollout == "cached" else 0
    # masks of the prefill and of rounds in which rows differ
    masks = (heads if width > 1 else 1) * width**2
    masks *= (context + proposed) ** 2 + rows * (proposed + 1) * length
    hidden = rows * width * (proposed + 1) * (2 * wider + 4 * wide + 8 * patch)
    forecasts = len(x) * samples * steps * patch * variables
    size = x.element_size() * (rows * width * length * (cache + 4 * patch) + masks + hidden + 8 * forecasts)
    if size < WITHOUT_ASKING:
        return
    free = free_memory(x.device)
    if free is not None and size > free:
        raise UserError(
            f"{steps * patch} time steps, {samples} paths of each of {len(x)} series and {how.k} patches proposed per "
            f"round take about {size / 2**30:.3g} GiB, and {free / 2**30:.3g} GiB are free: lower `horizon`, "
            "`num_samples`, `k` or `batch_size`"
        )


def free_memory(device: torch.device) -> int | None:
    """Bytes; None where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        told = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    except OSError:  # not Linux
        return None
    return told and 1024 * int(told[1])


def open_session(model, context: Tensor, capacity: int, rollout: str, attention_window: int = 0) -> Session:
    """A session under this rollout, ``cached`` or ``sliding``, for rows with this context ``[B, N, C, P]``."""
    if rollout == "sliding":
        return SlidingSession(model, context, capacity)
    return model.session(context, capacity, attention_window)


def open_draft(model, context: Tensor, capacity: int, target: Session | None = None) -> Session:
    """A draft's own session for rows with this context; ``target`` is the session whose hidden states it may read."""
    if model.block:
        return model.session(target) if model.reads_target else BlockSession(model, context, capacity)
    return open_session(model, context, capacity, draft_rollout(model, context.shape[2]))


def draft_rollout(model, variables: int) -> str:
    """The draft always uses its own: its cache where that renews its statistics, a sliding window elsewhere."""
    return "cached" if model.config.norm != "window" and cacheable(model.config, variables) else "sliding"


def mean_draw(i: int, mean: Tensor, log_var: Tensor | None) -> Tensor:
    """A point forecast is continued by its means."""
    return mean


def autoregress(
    session: Session, context: Tensor, steps: int, draw=mean_draw, renorm_every: int = 0, samples: int = 1
) -> Tensor:
    """A model's own rollout, one pass a patch: what "the target alone" means.

    Args:
        session: a fresh session of that model for this context ``[B, N, C, P]``.
        steps: patches to forecast.
        draw: ``draw(i, mean, log_var) -> patches`` of the forecast from the i-th on; the means by default.
        renorm_every: R > 0 forms and prefills the window anew after every R emitted patches.
        samples: S paths a row, from one prefill; ``draw`` sees the rows S times, one after the other.

    Returns:
        ``[B·S, steps, C, P]``
    """
    history, pending, window, done = context, context, context.shape[1], 0
    segment = renorm_every or steps
    if samples > 1:
        moments = session.extend(context, 1)
        session.repeat(samples)
        pending = draw(0, *(None if m is None else m.repeat_interleave(samples, 0) for m in moments))
        history, done = torch.cat((context.repeat_interleave(samples, 0), pending), 1), 1
    while done < steps:
        if done and done % segment == 0:
            pending = history[:, -window:]
            session.restart(pending, torch.arange(len(history)))
        count = min(segment - done % segment, steps - done)
        patches, _, _ = session.propose(pending, count, lambda i, *moments, done=done: draw(done + i, *moments))
        history, done = torch.cat((history, patches), 1), done + count
    return history[:, window:]


def autoregress_heads(session: Session, heads: Session, block: int, context: Tensor, steps: int) -> Tensor:
    """Target and heads in turn, nothing verified: one target pass for 1 + ``block`` patches.

    Args:
        session, heads: fresh sessions of the target and of heads that read it.
        context: ``[B, N, C, P]``.

    Returns:
        ``[B, steps, C, P]``
    """
    pending, patches = context, []
    while len(patches) < steps:
        mean, _ = session.extend(pending, 1)
        left = min(steps - len(patches) - 1, block)
        pending = torch.cat((mean, heads.propose(mean, left, mean_draw)[0]), 1) if left else mean
        patches += pending.split(1, 1)
    return torch.cat(patches, 1)
