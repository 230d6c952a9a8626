"""Models made ready for decoding, once, after loading."""

import torch
from torch import nn

from models import timer_xl
from models.layers.linear import pack


def for_inference(model: nn.Module, amp: str = "off", compiled: bool = False) -> nn.Module:
    """The same model, changed in place to run faster; its weights must not change any more.

    Args:
        model: in evaluation mode, on its device.
        amp: ``bf16`` keeps weights, hidden states and caches in bfloat16; inputs, statistics and outputs stay float32.
        compiled: compile the passes with static shapes (``torch.compile``).
    """
    network = isinstance(model, timer_xl.Model)
    if amp == "bf16" and (network or model.reads_target):  # other drafts are small
        model.to(torch.bfloat16)
    pack(model)
    if network:
        model.kept_tables = {}
    return model
