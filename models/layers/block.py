"""What drafts have in common that propose a whole block of patches in one call."""

from torch import Tensor, nn


class BlockDraft(nn.Module):
    """``configs`` has at least ``seq_len``, ``input_token_len``, ``channels`` and ``block_patches``."""

    block = True  # all proposals of a round come from one call
    reads_target = False

    def __init__(self, configs):
        super().__init__()
        self.configs = self.config = configs

    def forecast(self, window: Tensor) -> Tensor:
        """``[B, N, C, P]`` -> the next patches ``[B, block_patches, C, P]``."""
        raise NotImplementedError
