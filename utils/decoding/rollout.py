"""How a model alone continues a forecast past one patch."""

import torch
from torch import Tensor

from leapcast.models.sessions.base import Draw, Session, mean_draw


def autoregress(session: Session, context: Tensor, steps: int, draw: Draw = mean_draw, samples: int = 1) -> Tensor:
    """A model's own rollout, one pass per patch: what "the target alone" means.

    Args:
        session: a fresh session of that model for this context ``[B, N, C, P]``, which can propose.
        steps: patches to forecast.
        draw: ``draw(i, mean, log_var) -> patches`` of the forecast from the i-th on; the means by default.
        samples: S paths of each row, from one prefill; ``draw`` sees the rows S times, one after the other.

    Returns:
        ``[B·S, steps, C, P]``
    """
    if samples == 1:
        return session.propose(context, steps, draw)[0]
    mean, log_var = session.extend(context, 1)
    session.repeat(samples)
    repeated = None if log_var is None else log_var.repeat_interleave(samples, 0)
    first = draw(0, mean.repeat_interleave(samples, 0), repeated)
    if steps == 1:
        return first
    others = session.propose(first, steps - 1, lambda i, *moments: draw(i + 1, *moments))[0]
    return torch.cat((first, others), 1)


def autoregress_heads(session: Session, heads: Session, block: int, context: Tensor, steps: int) -> Tensor:
    """Target and heads in turn, nothing verified: one target pass for 1 + ``block`` patches.

    Args:
        session, heads: fresh sessions of the target and of heads that read it.
        context: ``[B, N, C, P]``.

    Returns:
        ``[B, steps, C, P]``
    """
    pending = context
    patches: list[Tensor] = []
    while len(patches) < steps:
        mean, _ = session.extend(pending, 1)
        left = min(steps - len(patches) - 1, block)
        pending = torch.cat((mean, heads.propose(mean, left, mean_draw)[0]), 1) if left else mean
        patches += pending.split(1, 1)
    return torch.cat(patches, 1)
