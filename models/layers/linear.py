"""Linear maps as decoding uses them."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Pointwise(nn.Conv1d):
    """A convolution with kernel size 1 over tokens ``[..., tokens, features]``: the linear map that it is."""

    def __init__(self, in_features: int, out_features: int):
        super().__init__(in_features, out_features, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.squeeze(-1), self.bias)


class PackedLinear(nn.Module):
    """A linear map on a CPU whose weight is laid out for oneDNN once, not at every call; for inference.

    With the few tokens of a decoding step, where the weight is most of what a call touches, 2 to 4 times as fast;
    slower below some 2^16 weights, where starting a kernel is most of the work.
    """

    LEAST = 2**16 + 1  # weights

    def __init__(self, weight: Tensor, bias: Tensor):
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.register_buffer("weight", torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous(), None))
        self.register_buffer("bias", bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")


def pack(module: nn.Module) -> None:
    """Replace the linear maps below a module by packed ones, where oneDNN can take their type on this CPU."""
    for name, child in module.named_children():
        if not isinstance(child, nn.Linear | Pointwise):
            pack(child)
        elif child.bias is not None and _packable(child.weight):
            setattr(module, name, PackedLinear(child.weight.flatten(1), child.bias))


def _packable(weight: Tensor) -> bool:
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available() or weight.numel() < PackedLinear.LEAST:
        return False
    return weight.dtype == torch.float32 or (
        weight.dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )
