"""Training by several processes at once, as torchrun starts them. Without torchrun there is one."""

import os

import torch
import torch.distributed as dist
from torch import Tensor, nn

from leapcast.models.errors import UserError


def rank() -> int:
    return int(os.environ["RANK"]) if dist.is_torchelastic_launched() else 0


def world() -> int:
    """How many processes there are."""
    return int(os.environ["WORLD_SIZE"]) if dist.is_torchelastic_launched() else 1


def place(device: torch.device) -> None:
    """Every process of a machine has a GPU of its own, where there are any."""
    if device.type == "cuda" and world() > 1:
        if int(os.environ["LOCAL_RANK"]) >= torch.cuda.device_count():
            raise UserError(f"--nproc_per_node: this machine has {torch.cuda.device_count()} GPUs: start as many")
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))


def start(device: torch.device) -> None:
    if world() > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")


def finish() -> None:
    """Wait for the process that writes, then part: one that leaves while others still talk may fall."""
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


def agree(what) -> None:
    """Refuse to go on where processes found different things (other data, or a resume file that only some see)."""
    found = [what] * world()
    if world() > 1:
        dist.all_gather_object(found, what)
    if any(other != what for other in found):
        raise UserError("the processes start from different states: --checkpoints and the data must be the same to all")


def mean(value: Tensor) -> Tensor:
    """Over all processes; each of them must ask for it."""
    if world() > 1:
        dist.all_reduce(value)
    return value / world()


def largest(value: int, device: torch.device) -> int:
    """Over all processes; each of them must ask for it."""
    if world() == 1:
        return value
    found = torch.tensor(value, device=device)
    dist.all_reduce(found, dist.ReduceOp.MAX)
    return int(found)


class Together(nn.Module):
    """A loss whose gradient is averaged over all processes: ``loss`` of this ``model``'s parameters."""

    def __init__(self, model: nn.Module, loss):
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, *inputs) -> Tensor:
        return self.loss(*inputs)


def together(model: nn.Module, loss):
    """``loss`` for training: the same, or in several processes the one whose gradient is that of their mean."""
    return loss if world() == 1 else nn.parallel.DistributedDataParallel(Together(model, loss))
