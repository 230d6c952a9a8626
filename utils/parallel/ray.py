"""Connection to a Ray cluster."""

import re
import socket
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from leapcast.models.errors import Interrupted

ROOT = Path(__file__).absolute().parents[3]  # of the package


@contextmanager
def cluster(args: Namespace, device: torch.device) -> Iterator[tuple]:
    """Start Ray or connect to ``--ray_address``; yields the module and the resources of one of ``--workers`` actors.

    Raises:
        Interrupted: Ray is not installed, no cluster answers, or it is too small for ``--workers``.
    """
    ray = optional("ray")
    try:
        if args.ray_address and (place := re.fullmatch(r"(?:ray://)?([^:/]+):(\d+)", args.ray_address)):
            socket.create_connection((place[1], int(place[2])), timeout=5).close()  # ray itself waits for minutes
        own: dict = {} if args.ray_address else {"include_dashboard": False}  # which takes seconds to start
        environment = {"env_vars": {"PYTHONPATH": str(ROOT)}}
        ray.init(args.ray_address or "local", runtime_env=environment, log_to_driver=False, **own)
    except (OSError, ValueError, RuntimeError) as error:
        raise Interrupted(f"--ray_address {args.ray_address}: no Ray cluster answers there; start one") from error
    try:
        needs = {"num_cpus": max(1, args.threads), "num_gpus": int(device.type == "cuda")}
        has = {"num_cpus": "CPU", "num_gpus": "GPU"}
        room = min(int(ray.cluster_resources().get(has[name], 0) // need) for name, need in needs.items() if need)
        if args.workers > room:
            raise Interrupted(
                f"--workers {args.workers}: this cluster has room for {room} of --threads {args.threads} each"
            )
        yield ray, needs
    finally:
        ray.shutdown()


def optional(name: str):
    """Import an optional dependency.

    Raises:
        Interrupted: it is not installed.
    """
    try:
        return __import__(name)
    except ImportError as error:
        raise Interrupted(f"this needs the package {name}: pip install {name}") from error
