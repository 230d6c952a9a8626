"""Preparation of loaded models for inference."""

from functools import cache
from typing import Any, TypeVar

import torch
from torch import nn

from leapcast.models import timer_xl
from leapcast.models.errors import UserError
from leapcast.models.layers.attention import Block
from leapcast.models.layers.fused import FusedBlock
from leapcast.models.layers.linear import freeze
from leapcast.models.sessions.cached import CachedSession

# weights become constants; kernels are tuned for small matrix products
INDUCTOR = {"freezing": True, "max_autotune": True, "max_autotune_gemm_backends": "CPP,ATEN"}
M = TypeVar("M", bound=nn.Module)
MOST_SHAPES = 64  # limit on compiled input shapes


def find_device(name: str) -> torch.device:
    """The device for ``auto``, ``cpu`` or ``cuda``; auto is CUDA if available.

    Raises:
        UserError: ``cuda`` without a CUDA device.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: torch sees no CUDA device; use --device cpu")
    return torch.device("cuda" if name == "cuda" or (name == "auto" and torch.cuda.is_available()) else "cpu")


def for_inference(model: M, amp: str = "off", compiled: bool = False) -> M:
    """Optimise a model for inference, in place. Call it once; the model can no longer be trained or saved.

    Args:
        model: in evaluation mode, on its device.
        amp: ``bf16`` keeps weights, hidden states and caches in bfloat16; inputs, statistics and outputs stay float32.
        compiled: compile the passes of a cached session with static shapes (``torch.compile``). Useful for small
            networks, whose time is mostly kernel launches; the first pass of each shape takes about half a minute.
    """
    counted: Any = model
    counted.weight_count = weights(model)  # packed weights are no parameters
    network: Any = model if hasattr(model, "prepare") else None
    if amp == "bf16" and (network or model.reads_target):  # other drafts are small
        model.to(torch.bfloat16)
    if compiled and not isinstance(model, timer_xl.Model):
        print("--compile: this model's passes are not compiled: going on without", flush=True)
        compiled = False
    compiled = compiled and _toolchain()
    if network:
        network.prepare(*([torch.compile(CachedSession.advance, dynamic=False)] if compiled else []))
    if not compiled:
        if isinstance(model, timer_xl.Model):
            layers = model.blocks.attn_layers
            for i, block in enumerate(layers):
                if isinstance(block, Block):
                    layers[i] = FusedBlock(block, last=i == len(layers) - 1)
        freeze(model)
    return model


def weights(model: nn.Module) -> int:
    """The number of a model's weights, whether it is prepared for inference or not."""
    return getattr(model, "weight_count", None) or sum(values.numel() for values in model.parameters())


@cache
def _toolchain() -> bool:
    """Whether torch.compile works here; prints the reason if not."""
    import torch._inductor.config  # slow to import, needed only for compilation

    try:
        torch.compile(lambda x: x + 1, dynamic=False)(torch.zeros(1))
    except Exception as error:  # a missing compiler raises errors of many types
        print(f"--compile: no working toolchain ({str(error).strip().splitlines()[0]}): going on without", flush=True)
        return False
    torch._dynamo.config.recompile_limit = MOST_SHAPES
    for name, value in INDUCTOR.items():  # torch.compile ignores freezing among its options
        setattr(torch._inductor.config, name, value)
    return True
