"""Training by several processes at once, as torchrun starts them. Without torchrun there is one."""

import os

import torch
import torch.distributed as dist
from torch import Tensor, nn


def rank() -> int:
    return int(os.environ.get("RANK", 0))


def world() -> int:
    """How many processes there are."""
    return int(os.environ.get("WORLD_SIZE", 1))


def place(device: torch.device) -> None:
    """Every process of a machine has a GPU of its own, where there are any."""
    if device.type == "cuda" and world() > 1:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))


def start(device: torch.device) -> None:
    if world() > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")


def mean(value: Tensor) -> Tensor:
    """Over all processes; each of them must ask for it."""
    if world() > 1:
        dist.all_reduce(value)
    return value / world()


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
