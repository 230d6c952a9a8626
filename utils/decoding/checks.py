"""Checks of models, rollout and memory before decoding; each raises a one-line UserError."""

import re
from pathlib import Path

import torch
from torch import Tensor

from leapcast.models.errors import UserError

WITHOUT_ASKING = 2**28  # bytes below which free memory is not checked
ROUND = 2**30  # bytes that one window may take where K is not given
MOST_TOKENS = 16384  # tokens that attend to each other; with more, the mask alone takes gigabytes


def check_rollout(model, variables: int, how) -> None:
    """Reject a rollout (``how.rollout`` and its options) that is not exact for this model configuration."""
    rollout, renorm_every = how.rollout, how.renorm_every
    if rollout == "cached" and not model.cacheable(variables):
        raise UserError("a cache is not exact for several variables under `rope_index` flat: use `rollout` sliding")
    if renorm_every and (rollout, model.norm) != ("cached", "window"):
        raise UserError("`renorm_every` is for `rollout` cached of a target with `norm` window: leave it at 0")
    if how.attention_window and rollout == "sliding":
        raise UserError("`attention_window` is for `rollout` cached; a sliding window is as long as the context")
    if not getattr(model, "slides", True) and (rollout != "cached" or how.attention_window):
        raise UserError(
            "this model is decoded with a cache of all its past: leave `rollout` and `attention_window` out"
        )


def check_width(channels: str, variables: int, patches: int) -> None:
    """Reject more than ``MOST_TOKENS`` jointly attending tokens."""
    if channels == "joint" and variables * patches > MOST_TOKENS:
        raise UserError(
            f"{variables} variables together over {patches} patches are too many: choose by `columns`, or take a model "
            "trained with `channels` independent"
        )


def check_padding(model, x: Tensor) -> None:
    """Reject contexts ``[B, L, C]`` with NaN that is no padding, which is of whole patches unless the model ``pads``.

    Where several variables share a rotary index, the padding would count in it.
    """
    if not x.isnan().any():
        return
    missing = x.isnan()
    before = missing[..., :1].sum(1, keepdim=True)  # time steps of padding
    padding = torch.arange(x.shape[1], device=x.device)[:, None] < before
    if bool((missing != padding).any()) or int(before.max()) == x.shape[1]:
        raise UserError("the context has NaN: only whole patches before its values may be NaN, in all variables")
    if not model.pads and bool((before % model.input_token_len).any()):
        raise UserError(f"this model reads whole patches: pad by a multiple of {model.input_token_len} time steps")
    if not model.cacheable(x.shape[2]):
        raise UserError("contexts of different lengths are not exact for several variables under `rope_index` flat")


def check_room(model, how, x: Tensor, steps: int, samples: int, together: int, k: int = 0) -> None:
    """Reject forecasts that need more memory than is free, before allocating any.

    Args:
        model: configuration of the target.
        how: its ``rollout`` is used.
        x: ``[B, L, C]``.
        steps: patches to forecast.
        samples: sample paths per window.
        together: windows that are decoded together.
        k: most patches proposed per round.

    Raises:
        UserError: there is too little.
    """
    size = room_taken(model, how, x, steps, samples, together, k)
    if size < WITHOUT_ASKING:
        return
    free = free_memory(x.device)
    if free is not None and size > free:
        raise UserError(
            f"{steps * model.input_token_len} time steps, {samples} paths of each of {len(x)} series and {k} patches "
            f"proposed per round take about {size / 2**30:.3g} GiB, and {free / 2**30:.3g} GiB are free: lower "
            "`horizon`, `num_samples`, `k` or `batch_size`"
        )


def room_taken(model, how, x: Tensor, steps: int, samples: int, together: int, k: int) -> float:
    """About how many bytes a forecast takes; arguments as in :func:`check_room`."""
    patch, variables = model.input_token_len, x.shape[2]
    context, proposed = x.shape[1] // patch, min(k, steps - 1)
    joint = model.channels == "joint"
    rows, width = min(together, len(x)) * samples * (1 if joint else variables), variables if joint else 1
    length = context + steps + proposed  # patches per row
    tokens = patch // getattr(model, "token_len", patch)  # per patch
    # a model without these sizes is assumed to hold its patches only
    layers, wide, heads, wider = (getattr(model, name, 0) for name in ("e_layers", "d_model", "n_heads", "d_ff"))
    cache = 2 * tokens * layers * wide if how.rollout == "cached" else 0
    # masks of the prefill and of rounds in which rows differ
    masks = (heads if width > 1 else 1) * width**2
    masks *= tokens**2 * ((context + proposed) ** 2 + rows * (proposed + 1) * length)
    hidden = rows * width * (proposed + 1) * (tokens * (2 * wider + 4 * wide) + 8 * patch)
    forecasts = len(x) * samples * steps * patch * variables
    return x.element_size() * (rows * width * length * (cache + 4 * patch) + masks + hidden + 8 * forecasts)


def fitting(model, how, x: Tensor, steps: int, samples: int, k: int) -> int:
    """``k``, halved until so many proposals of one window take at most ``ROUND``; arguments as in :func:`check_room`.

    What is free just now, and what else is in the batch, must not change a forecast.
    """
    while k > 1 and room_taken(model, how, x[:1], steps, samples, 1, k) > ROUND:
        k //= 2
    return k


def free_memory(device: torch.device) -> int | None:
    """Free memory of the device in bytes; None if unknown."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        available = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    except OSError:  # not Linux
        return None
    return available and 1024 * int(available[1])


def check_pair(target, draft, config) -> None:
    """Reject a draft that cannot propose for this target with this :class:`SpeculativeConfig`."""
    patches = draft.config.input_token_len, target.config.input_token_len
    if patches[0] != patches[1]:
        raise UserError(
            "the draft's patch ({}) is not the target's ({}): train a draft with the target's `input_token_len`".format(
                *patches
            )
        )
    if getattr(draft, "reads_long_head", False) and not target.config.long_head:
        raise UserError("this draft is the target's own long head, and this target has none: use self-drafting")
    if draft.reads_target and draft.at_once and (config.k or 0) > draft.at_once:
        raise UserError(f"`k` {config.k}: this draft has heads for {draft.at_once} patches at most")
    if target.config.stochastic_head and config.steered:
        raise UserError("`sigma_mode` adaptive: this target has learned variances, which have no one factor to steer")
    if target.config.stochastic_head and not isinstance(config.sigma, float | int):
        raise UserError("`sigma` calibrated: this target has learned variances, which are used in its place")


def check_draft(target, draft) -> None:
    """Reject a draft whose patch length, channel mode or seasonal profile differs from the target's."""
    configs = [model.config for model in (target, draft)]
    sizes = [(config.input_token_len, config.channels, config.profile) for config in configs]
    if sizes[0] != sizes[1]:
        raise UserError(
            "the draft (patch {}, channels {}, profile {}) does not fit the target (patch {}, channels {}, profile "
            "{}): distil one from this target".format(*sizes[1], *sizes[0])
        )
