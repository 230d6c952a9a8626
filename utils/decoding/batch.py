"""Rows that are decoded together and accept different numbers of patches."""

import torch
from torch import Tensor

from leapcast.models.layers.patches import put, take
from leapcast.models.sessions.base import Draft, Session, Target
from leapcast.utils.decoding.config import SpeculativeConfig
from leapcast.utils.decoding.covariance import Spread
from leapcast.utils.decoding.noise import path_series
from leapcast.utils.decoding.round import Place, Proposal, Verdict, Verified
from leapcast.utils.decoding.rules import Rule


class RaggedBatch:
    """The rows still decoding: their sessions, what they emitted, and what the models were conditioned on.

    The two differ where a rule emits something else than the proposals that it accepts: these stay in the caches. All
    bookkeeping of lengths is on the host.

    Args:
        context: ``[rows, N, C, P]``.
        steps: patches to forecast.
        series: ``[rows]``, keys the noise.
    """

    def __init__(
        self,
        target: Target,
        draft: Draft,
        config: SpeculativeConfig,
        rule: Rule,
        context: Tensor,
        steps: int,
        series: Tensor,
    ):
        batch, self.context_len = context.shape[:2]
        self.steps, self.series = steps, series
        self.rule, self.spread = rule, Spread(config.sigma, context)
        self.index = torch.arange(batch)  # the rows' place in the forecast
        self.held = torch.full((batch,), self.context_len)  # patches of context and forecast
        # beside longer rows, a row near its horizon carries proposals that lie past it
        capacity = self.context_len + steps + min(config.k, steps)
        self.emitted = context.new_zeros(batch, capacity, *context.shape[2:])
        self.emitted[:, : self.context_len] = context
        self.conditioned = self.emitted  # another tensor as soon as they differ
        self.accepted = torch.zeros(batch, capacity, dtype=torch.bool)  # patches emitted after an accepted proposal
        self.forecast = context.new_empty(batch, steps, *context.shape[2:])
        self.accepted_patches = torch.empty(batch, steps, dtype=torch.bool)
        self.target = target.open_target(context, capacity, config)
        self.draft = draft.open_draft(context, capacity, self.target)
        # heads on the target's hidden states cannot propose before its first pass
        self.can_propose = not draft.reads_target
        self.opening: Verified | None = None  # what a prefill that paths share has said of the next patch

    def __len__(self) -> int:
        return len(self.index)

    def split(self, samples: int) -> None:
        """Both models take in the context; then every row becomes ``samples`` paths."""
        mean, log_var = self.target.extend(self.emitted[:, : self.context_len], 1)
        if self.can_propose:
            self.draft.extend(self.emitted[:, : self.context_len], 1)
        series = path_series(self.series, samples)
        self._select(torch.arange(len(self.index)).repeat_interleave(samples))
        self.series, self.index = series, torch.arange(len(series))
        self.forecast = self.forecast.repeat_interleave(samples, 0)
        self.accepted_patches = self.accepted_patches.repeat_interleave(samples, 0)
        repeated = None if log_var is None else log_var.repeat_interleave(samples, 0)
        self.opening = Verified(mean.repeat_interleave(samples, 0), repeated)

    def propose(self, plan: list[int]) -> Proposal:
        """As many patches as the plan says, never past a row's horizon or the end of its window's segment.

        Args:
            plan: proposals with 0 … ``steps`` patches left.
        """
        limit = torch.zeros_like(self.held)
        if self.can_propose and self.opening is None:
            left, room = self.context_len + self.steps - self.held, self.target.room()
            left = left if room is None else left.minimum(room)
            limit = (left - 1).clamp(max=plan[int(left.max())])
        k = int(limit.max())
        noise = self.rule.noise(Place(self.series, self.held - self.context_len, self.spread), k + 1, self.emitted)
        if not k:
            nothing = self.emitted[:, :0]
            return Proposal(limit, noise, nothing, nothing)

        def draw(i: int, mean: Tensor, log_var: Tensor | None) -> Tensor:
            return self.rule.draw(noise, i, mean, log_var)

        return Proposal(limit, noise, *self.draft.propose(self._pending(self.draft), k, draw))

    def verify(self, proposal: Proposal) -> Verified:
        """One target pass over what each row has emitted and not yet taken in, and what was proposed."""
        if self.opening is not None:
            opening, self.opening = self.opening, None
            return opening
        new = torch.cat((self._pending(self.target), proposal.patches), 1)
        return Verified(*self.target.extend(new, proposal.k + 1))

    def advance(self, proposal: Proposal, verdict: Verdict) -> None:
        """Row b gains the first ``accepted[b] + 1`` emitted patches; both sessions keep its accepted proposals."""
        accepted, emitted, held = verdict.accepted, verdict.emitted, self.held
        put(self.emitted, held, emitted)
        if proposal.k:
            put(self.accepted, held, verdict.kept)
        self.held = held + accepted + 1
        finished = self.held == self.context_len + self.steps
        if finished.all():
            self._leave(slice(None), self.index)
            self.index = self.index[:0]
            return
        if proposal.k:
            self._rollback(self.draft, held, accepted)
        self._rollback(self.target, held, accepted)
        self.target.settle(held, emitted)
        self.can_propose = True
        if not self.rule.emits_proposals:
            if self.conditioned is self.emitted:
                self.conditioned = self.emitted.clone()
            put(self.conditioned, held, emitted)
            if proposal.k:
                kept = verdict.kept[..., None, None].to(emitted.device)
                put(self.conditioned, held, torch.where(kept, proposal.patches, emitted[:, :-1]))
        if finished.any():  # these rows leave the batch
            off, on = (torch.nonzero(rows).squeeze(1) for rows in (finished, ~finished))
            self._leave(off, self.index[off])
            self._select(on)

    def _pending(self, session: Session) -> Tensor:
        """What the session has not taken in, after a rollback to where all rows lack equally many patches."""
        lack = int((self.held - session.lengths).max())
        session.rollback(self.held - lack)
        return take(self.emitted if session.emitted_only else self.conditioned, self.held - lack, lack)

    def _rollback(self, session: Session, held: Tensor, accepted: Tensor) -> None:
        kept = session.lengths.minimum(held + accepted)
        # heads on the target read on after the accepted, whatever the window slides over
        session.rollback(session.lengths.minimum(held) if session.emitted_only else kept, kept)

    def _leave(self, rows: Tensor | slice, place: Tensor) -> None:
        """What was found of these rows goes to its place."""
        found = slice(self.context_len, self.context_len + self.steps)
        self.accepted_patches[place] = self.accepted[rows, found]
        if isinstance(rows, Tensor):
            rows = rows.to(self.emitted.device)
        self.forecast[place.to(self.emitted.device)] = self.emitted[rows, found]

    def _select(self, rows: Tensor) -> None:
        """Go on with these rows, in this order."""
        self.index, self.held, self.accepted = self.index[rows], self.held[rows], self.accepted[rows]
        self.spread = self.spread.select(rows)
        self.target.keep(rows)
        self.draft.keep(rows)
        rows = rows.to(self.emitted.device)
        shared = self.conditioned is self.emitted
        self.emitted, self.series = self.emitted[rows], self.series[rows]
        self.conditioned = self.emitted if shared else self.conditioned[rows]
