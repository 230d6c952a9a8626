"""Ways to run the configurations of a sweep: in this process, by Ray actors, or chosen by a search.

Each is a generator of records, in order of completion.
"""

import math
import os
from argparse import Namespace
from collections.abc import Iterator

from leapcast.exp.exp_sweep import ExpSweep, lists, meant
from leapcast.exp.identity import plain
from leapcast.models.errors import UserError
from leapcast.utils.analysis.operating_point import Objective
from leapcast.utils.parallel.ray import cluster, optional

PENALTY = 1e3  # of the objective, per unit by which a constraint is missed
Numbered = list[tuple[int, dict]]  # number and configuration


def serial(experiment: ExpSweep, todo: Numbered) -> Iterator[dict]:
    for number, setting in todo:
        yield experiment.run(number, setting)


class Worker:
    """A Ray actor with models and data, which also measures baselines."""

    def __init__(self, args: Namespace, folder: str, contents: list[str]):
        os.chdir(folder)
        self.experiment = ExpSweep(args)
        if self.experiment.contents() != contents:
            raise UserError("a worker found other checkpoints or data under the same paths: copy them to all machines")

    def ready(self) -> None:
        """Returns once models and data are loaded."""

    def run(self, number: int, setting: dict) -> dict:
        return self.experiment.run(number, setting)


def ray_actors(experiment: ExpSweep, todo: Numbered) -> Iterator[dict]:
    """Run on ``--workers`` actors. Ray restarts a killed actor and retries its configuration, three times at most.

    Every machine needs the project, the data and the checkpoints under the same paths.
    """
    args = experiment.told
    with cluster(args, experiment.device) as (ray, needs):
        actor = ray.remote(max_restarts=-1, max_task_retries=3, **needs)(Worker)
        idle = [actor.remote(args, os.getcwd(), experiment.contents()) for _ in range(args.workers)]
        try:
            ray.get([worker.ready.remote() for worker in idle])
        except ray.exceptions.RayError as error:
            raise UserError(f"a Ray worker cannot start: {str(error).strip().splitlines()[-1]}") from error
        waiting = todo[::-1]
        running: dict = {}  # reference -> worker and its configuration
        while waiting or running:
            while waiting and idle:
                worker, numbered = idle.pop(), waiting.pop()
                running[worker.run.remote(*numbered)] = worker, numbered
            for done in ray.wait(list(running))[0]:
                worker, (number, setting) = running.pop(done)
                idle.append(worker)
                try:
                    yield ray.get(done)
                except ray.exceptions.RayError as error:
                    yield experiment.failed(number, setting, error)


def search(experiment: ExpSweep, records: dict[int, dict], objective: Objective) -> Iterator[dict]:
    """Run ``--trials`` configurations that Optuna chooses within the ranges of the grid's lists.

    Earlier records are reported to Optuna again, so a search can be resumed from the results file alone.
    """
    optuna = optional("optuna")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    args = experiment.told
    parts: dict[str, dict[str, list]] = {}
    for part in lists(args):
        values_of = parts.setdefault(part["mode"][0], {name: [] for name in part})
        for name, values in part.items():
            values_of[name] += [value for value in values if value not in values_of[name]]
    study = optuna.create_study(direction="maximize")
    for number in range(args.trials):
        study.sampler = optuna.samplers.TPESampler(seed=args.seed + number)  # the same after a resume
        known = records.get(number)
        if known:
            study.enqueue_trial(meant(known["trial"]))
        trial = study.ask()
        mode = trial.suggest_categorical("mode", list(parts))
        values_of = parts[mode] | {"mode": [mode]}
        setting = {name: pick(trial, mode, name, values) for name, values in values_of.items()}
        predicted = {} if known else {"predicted": experiment.predict(setting), "trial": plain(trial.params)}
        record = known or experiment.run(number, setting) | predicted
        value = None if record["error"] else objective.value(record)
        if value is None:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
        else:
            missed = sum(objective.missed(record).values())
            study.tell(trial, objective.sign * value - PENALTY * missed)
        if not known:
            yield record


def pick(trial, mode: str, name: str, values: list):
    """Optuna's choice: one of ``values``, or, if all are finite numbers, one between the least and the greatest."""
    key = f"{mode} {name}"
    if len(set(values)) == 1:
        return values[0]
    if name == "k":
        return trial.suggest_int(key, min(values), max(values))
    if any(not isinstance(value, float) or math.isinf(value) for value in values):
        return trial.suggest_categorical(key, values)
    return trial.suggest_float(key, min(values), max(values), log=min(values) > 0)
