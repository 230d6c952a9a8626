"""Data-parallel training under torchrun; without torchrun there is a single process."""

import os

import torch
import torch.distributed as dist
from torch import Tensor, nn

from leapcast.models.errors import UserError


def rank() -> int:
    """Rank of this process, from 0."""
    return int(os.environ["RANK"]) if dist.is_torchelastic_launched() else 0


def world() -> int:
    """Number of processes."""
    return int(os.environ["WORLD_SIZE"]) if dist.is_torchelastic_launched() else 1


def place(device: torch.device) -> None:
    """Select the GPU of this process by its local rank.

    Raises:
        UserError: there are more processes than GPUs.
    """
    if device.type == "cuda" and world() > 1:
        if int(os.environ["LOCAL_RANK"]) >= torch.cuda.device_count():
            raise UserError(f"--nproc_per_node: this machine has {torch.cuda.device_count()} GPUs: start as many")
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))


def start(device: torch.device) -> None:
    """Initialise the process group: NCCL on GPUs, else gloo."""
    if world() > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")


def finish() -> None:
    """Wait for all processes, then destroy the process group: leaving while others communicate can fail."""
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


def agree(what) -> None:
    """Check that ``what`` (such as a digest of the data or of the state to resume) is equal in all processes.

    Raises:
        UserError: it differs.
    """
    gathered = [what] * world()
    if world() > 1:
        dist.all_gather_object(gathered, what)
    if any(other != what for other in gathered):
        raise UserError("the processes start from different states: --checkpoints and the data must be the same to all")


def mean(value: Tensor) -> Tensor:
    """Mean over all processes, each of which must call this; ``value`` is overwritten by the sum."""
    if world() > 1:
        dist.all_reduce(value)
    return value / world()


def largest(value: int, device: torch.device) -> int:
    """Maximum over all processes, each of which must call this."""
    if world() == 1:
        return value
    maximum = torch.tensor(value, device=device)
    dist.all_reduce(maximum, dist.ReduceOp.MAX)
    return int(maximum)


class Together(nn.Module):
    """A loss as a module that owns the model's parameters, so that DistributedDataParallel averages its gradients."""

    def __init__(self, model: nn.Module, loss):
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, *inputs) -> Tensor:
        return self.loss(*inputs)


def together(model: nn.Module, loss):
    """``loss`` itself in a single process; with several, wrapped so that gradients are averaged over processes."""
    return loss if world() == 1 else nn.parallel.DistributedDataParallel(Together(model, loss))
