"""Batches of rows that accept different numbers of patches per round."""

import torch
from torch import Tensor

from leapcast.models.layers.patches import put, take
from leapcast.models.sessions.base import Draft, Session, Target
from leapcast.models.sessions.reuse import ReuseSession
from leapcast.utils.decoding.config import SpeculativeConfig
from leapcast.utils.decoding.covariance import Spread
from leapcast.utils.decoding.noise import PathNoise, path_series
from leapcast.utils.decoding.round import Place, Proposal, Verdict, Verified
from leapcast.utils.decoding.rules import Rule
from leapcast.utils.decoding.steering import Steered


class RaggedBatch:
    """The unfinished rows: their sessions, emitted patches and the patches that the models were conditioned on.

    Emitted and conditioning patches differ where a rule does not emit the proposals that it accepts: the caches keep
    the proposals. Lengths are kept on the host.

    Args:
        target, draft: models in evaluation mode on the same device.
        config: see :class:`SpeculativeConfig`.
        rule: judges proposals.
        context: ``[rows, N, C, P]``, shorter rows padded on the left by NaN.
        steps: ``[rows]``, on the host: patches to forecast.
        series: ``[rows]``, keys the noise.
        most: patches that are proposed per round at most.
    """

    def __init__(
        self,
        target: Target,
        draft: Draft,
        config: SpeculativeConfig,
        rule: Rule,
        context: Tensor,
        steps: Tensor,
        series: Tensor,
        most: int,
    ):
        batch, self.context_len = context.shape[:2]
        self.steps, self.series, furthest = steps, series, int(steps.max())
        self.rule = rule
        self.spread = Steered(config, context) if config.steered else Spread(config.sigma, context)
        self.patience, self.failures = config.patience, torch.zeros(batch, dtype=torch.long)  # rounds in succession
        self.index = torch.arange(batch)  # index of each row in the forecast
        self.held = torch.full((batch,), self.context_len)  # patches per row, context and forecast
        # in a shared round, a row near its horizon may carry proposals past it
        capacity = self.context_len + furthest + most
        self.emitted = context.new_zeros(batch, capacity, *context.shape[2:])
        self.emitted[:, : self.context_len] = context
        self.conditioned = self.emitted  # a separate tensor once they differ
        self.accepted = torch.zeros(batch, capacity, dtype=torch.bool)  # patches emitted after an accepted proposal
        # NaN beyond the horizon of a row
        self.forecast = context.new_full((batch, furthest, *context.shape[2:]), torch.nan)
        self.accepted_patches = torch.zeros(batch, furthest, dtype=torch.bool)
        self.quantiles: Tensor | None = None  # [rows, steps, C, P, levels], the target's own
        self.target = target.open_target(context, capacity, config)
        self.draft = draft.open_draft(context, capacity, self.target)
        if not rule.emits_proposals:  # else what follows a rejected draw is far from what follows its replacement
            self.draft = ReuseSession(self.draft, self.target)
        # heads that read the target's hidden states cannot propose before its first pass
        self.can_propose = not draft.reads_target
        self.opening: Verified | None = None  # the next patch's distribution, from a prefill shared by sample paths
        self.draws = PathNoise(config.seed, series, furthest + most, context) if rule.draws else None

    def __len__(self) -> int:
        return len(self.index)

    @property
    def left(self) -> Tensor:
        """``[b]``: patches that each row has yet to emit."""
        return self.context_len + self.steps - self.held

    @property
    def within(self) -> Tensor:
        """``[b, furthest horizon]``: which patches are within the horizon of a row."""
        return torch.arange(self.forecast.shape[1]) < self.steps.unsqueeze(1)

    def split(self, samples: int) -> None:
        """Prefill both models with the context, then repeat every row into ``samples`` paths."""
        mean, log_var = self.target.extend(self.emitted[:, : self.context_len], 1)
        if self.can_propose:
            self.draft.extend(self.emitted[:, : self.context_len], 1)
        series = path_series(self.series, samples)
        self._select(torch.arange(len(self.index)).repeat_interleave(samples))
        self.series, self.index = series, torch.arange(len(series))
        self.draws = self.draws.of(series) if self.draws else None
        self.forecast = self.forecast.repeat_interleave(samples, 0)
        self.accepted_patches = self.accepted_patches.repeat_interleave(samples, 0)
        repeated = None if log_var is None else log_var.repeat_interleave(samples, 0)
        self.opening = Verified(mean.repeat_interleave(samples, 0), repeated)

    def propose(self, plan: list[int]) -> Proposal:
        """Propose as many patches as planned, at most to a row's horizon or the end of its window's segment.

        Args:
            plan: number of proposals with 0 … most patches left.
        """
        limit = torch.zeros_like(self.held)
        if self.can_propose and self.opening is None:
            left, room = self.left, self.target.room()
            left = left if room is None else left.minimum(room)
            limit = (left - 1).clamp(max=plan[int(left.max())])
            if self.patience:
                limit[self.failures >= self.patience] = 0
        k = int(limit.max())
        outputs = self.target.outputs(0) if self.rule.learned else None
        log_var = outputs and outputs[0][1]
        done = self.held - self.context_len
        z = self.draws.take(self.index, done, k + 1) if self.draws else None
        place = Place(self.series, done, self.spread, z, log_var)
        noise = self.rule.noise(place)
        if not k:
            nothing = self.emitted[:, :0]
            return Proposal(limit, noise, nothing, nothing)

        def draw(i: int, mean: Tensor, log_var: Tensor | None) -> Tensor:
            return self.rule.draw(noise, i, mean, log_var)

        return Proposal(limit, noise, *self.draft.propose(self._pending(self.draft), k, draw))

    def verify(self, proposal: Proposal) -> Verified:
        """One target pass over the patches that the target has not yet processed, and the proposals."""
        if self.opening is not None:
            opening, self.opening = self.opening, None
            return opening
        new = torch.cat((self._pending(self.target), proposal.patches), 1)
        return Verified(*self.target.extend(new, proposal.k + 1))

    def advance(self, proposal: Proposal, verdict: Verdict) -> None:
        """Append the first ``accepted[b] + 1`` emitted patches to row b; sessions keep its accepted proposals."""
        accepted, emitted, held = verdict.accepted, verdict.emitted, self.held
        put(self.emitted, held, emitted)
        if proposal.k:
            put(self.accepted, held, verdict.kept)
            self.failures = torch.where(accepted > 0, 0, self.failures + (proposal.limit > 0))
        self.held = held + accepted + 1
        self.spread = self.spread.after(verdict)
        finished = self.left == 0
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
        if finished.any():  # remove finished rows from the batch
            done, active = (torch.nonzero(rows).squeeze(1) for rows in (finished, ~finished))
            self._leave(done, self.index[done])
            self._select(active)

    def _pending(self, session: Session) -> Tensor:
        """Patches that the session has yet to process, after a rollback that makes their number equal in all rows."""
        lack = int((self.held - session.lengths).max())
        session.rollback(self.held - lack)
        return take(self.emitted if session.emitted_only else self.conditioned, self.held - lack, lack)

    def _rollback(self, session: Session, held: Tensor, accepted: Tensor) -> None:
        kept = session.lengths.minimum(held + accepted)
        # draft heads continue reading after the accepted patches, however the window slides
        session.rollback(session.lengths.minimum(held) if session.emitted_only else kept, kept)

    def _leave(self, rows: Tensor | slice, place: Tensor) -> None:
        """Write the forecasts of these rows to ``place``."""
        furthest = self.forecast.shape[1]
        horizon, within = slice(self.context_len, self.context_len + furthest), self.within[rows]
        self.accepted_patches[place] = self.accepted[rows, horizon] & within
        if isinstance(rows, Tensor):
            rows = rows.to(self.emitted.device)
        place, within = place.to(self.emitted.device), within.to(self.emitted.device)[..., None, None]
        self.forecast[place] = self.emitted[rows, horizon].masked_fill(~within, torch.nan)
        if (own := self.target.own_quantiles(rows, furthest)) is not None:
            if self.quantiles is None:
                self.quantiles = own.new_empty(len(self.forecast), *own.shape[1:])
            self.quantiles[place] = own.masked_fill(~within.unsqueeze(-1), torch.nan)

    def _select(self, rows: Tensor) -> None:
        """Keep these rows only, in this order."""
        self.index, self.held, self.accepted = self.index[rows], self.held[rows], self.accepted[rows]
        self.failures, self.steps = self.failures[rows], self.steps[rows]
        self.spread = self.spread.select(rows)
        self.target.keep(rows)
        self.draft.keep(rows)
        rows = rows.to(self.emitted.device)
        shared = self.conditioned is self.emitted
        self.emitted, self.series = self.emitted[rows], self.series[rows]
        self.conditioned = self.emitted if shared else self.conditioned[rows]
