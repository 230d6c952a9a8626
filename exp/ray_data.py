"""Batches of series, forecast by actors of a Ray cluster; Ray Data reads, distributes and orders them."""

import os
from collections.abc import Iterator
from itertools import islice

import pandas as pd

from leapcast.backtest import Backtest
from leapcast.data_provider.histories import Table
from leapcast.inputs import LeftOut, batches, series_of
from leapcast.models.errors import Interrupted, UserError
from leapcast.utils.decoding.plan import Decision
from leapcast.utils.parallel.ray import cluster

AHEAD = 4  # maximum number of batches queued per actor


def ray_decode(experiment, skip: int, sigma) -> Iterator[tuple]:
    """The same results in the same order as ``experiment.serial`` (:class:`exp.exp_predict.ExpPredict`).

    One task reads the table and streams batches; ``--workers`` actors hold the models. Every machine needs the project,
    the table and the checkpoints under the same paths.
    """
    args, folder = experiment.args, os.getcwd()
    read = experiment.table, experiment.left_out
    shared = experiment.decision, experiment.backtest
    with cluster(args, experiment.device) as (ray, needs):
        from ray.data import DataContext, Datasource, ReadTask
        from ray.data.block import BlockMetadata

        class Source(Datasource):
            """The table, read by one task; a block is a batch of series."""

            def estimate_inmemory_data_size(self) -> None:
                return None

            def get_read_tasks(self, parallelism: int, *rest, **more) -> list:
                metadata = BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None)
                return [ReadTask(lambda: blocks(*read, folder, skip, args.batch_size), metadata)]

        context = DataContext.get_current()
        context.execution_options.preserve_order = True
        context.enable_progress_bars = False
        context.target_max_block_size = 1  # one block per batch of series, whatever its size
        # with resource needs unlike the actors', so that Ray does not fuse reading and forecasting
        data = ray.data.read_datasource(Source(), override_num_blocks=1, num_cpus=0).map_batches(
            Actor,
            fn_constructor_args=(type(experiment), args, folder, experiment.hashes(), sigma, *shared),
            batch_size=None,
            batch_format="pandas",
            compute=ray.data.ActorPoolStrategy(size=args.workers, max_tasks_in_flight_per_actor=AHEAD),
            **needs,
        )
        try:
            for frame in data.iter_batches(batch_size=None, batch_format="pandas", prefetch_batches=1):
                yield from frame["done"]
        except ray.exceptions.RayError as error:
            raise reason(error) from error


def blocks(table: Table, left_out: LeftOut | None, folder: str, skip: int, size: int) -> Iterator[pd.DataFrame]:
    """Batches of ``size`` series, from number ``skip`` on, one per frame."""
    os.chdir(folder)
    if table.changed():
        raise Interrupted(f"another machine has another {table.told}: copy it to all machines")
    for batch in batches(islice(series_of(table, left_out), skip, None), size):
        yield pd.DataFrame({"batch": [batch]})


class Actor:
    """Holds an experiment with its models. Raises Interrupted where a worker lacks the same checkpoints."""

    def __init__(
        self,
        kind: type,
        args,
        folder: str,
        hashes: list[str],
        sigma,
        decision: Decision | None,
        backtest: Backtest | None,
    ):
        os.chdir(folder)
        try:
            self.experiment, self.sigma = kind(args), sigma
        except UserError as error:
            raise Interrupted(f"a worker cannot start: {error}") from error
        if self.experiment.hashes() != hashes:
            raise Interrupted("a worker found other checkpoints under the same paths: copy them to all machines")
        self.decision, self.experiment.backtest = decision, backtest

    def __call__(self, frame: pd.DataFrame) -> pd.DataFrame:
        batches = list(frame["batch"])
        if self.decision:  # of the run, not anew by each worker
            self.experiment.take(list(batches[0]), self.sigma, self.decision)
        done = [self.experiment.work(list(batch), self.sigma) for batch in batches]
        # the values of the context are not sent back
        return pd.DataFrame({"done": [([history.end() for history in batch], *found) for batch, *found in done]})


def reason(error: Exception) -> UserError:
    """The UserError within Ray's message, or the message's last line as Interrupted."""
    text = str(error)
    for line in reversed(text.splitlines()):
        for kind in (Interrupted, UserError):
            _, found, message = line.partition(f"{kind.__name__}: ")
            if found:
                return kind(message)
    return Interrupted(f"Ray: {text.strip().splitlines()[-1]}; give the same command again")
