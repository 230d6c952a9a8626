"""Autoregressive rollout of one model, without verification."""

import torch
from torch import Tensor

from leapcast.models.sessions.base import Draw, Session, mean_draw


def autoregress(session: Session, context: Tensor, steps: int, draw: Draw = mean_draw, samples: int = 1) -> Tensor:
    """Autoregressive rollout of a model, one pass per patch; the target-only baseline.

    Args:
        session: a new session of the model, able to propose.
        context: ``[B, N, C, P]``.
        steps: patches to forecast.
        draw: ``draw(i, mean, log_var) -> patches``, the forecast patches from the i-th on; by default the means.
        samples: S paths per row, from one prefill; ``draw`` is given each row S times in succession.

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
    """Alternate target and draft heads without verification: one target pass per 1 + ``block`` patches.

    Args:
        session, heads: new sessions of the target and of the heads that read its hidden states.
        block: patches that the heads propose per target pass.
        context: ``[B, N, C, P]``.
        steps: patches to forecast.

    Returns:
        ``[B, steps, C, P]``
    """
    pending = context
    patches: list[Tensor] = []
    while len(patches) < steps:
        mean, _ = session.extend(pending, 1)
        heads.rollback(session.lengths)  # they have yet to read the next patch
        left = min(steps - len(patches) - 1, block)
        pending = torch.cat((mean, heads.propose(mean, left, mean_draw)[0]), 1) if left else mean
        patches += pending.split(1, 1)
    return torch.cat(patches, 1)
