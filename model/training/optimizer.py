"""AdamW, and which parameters decay."""

from typing import Any

import torch
from torch import Tensor, nn

from .config import TrainConfig

BETAS = (0.9, 0.999)


def parameter_groups(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weight matrices, which decay, and everything else, which does not.

    Norms, biases and other parameters of one dimension (the CLS token) set a scale or an offset;
    pulling them to 0 does not make the function simpler.

    Args:
        network: Its parameters that do not require a gradient are left out; shared ones come once.
        weight_decay: For the first group, >= 0.

    Returns:
        One or two groups for a torch optimizer, in the order of `named_parameters`.

    Raises:
        ValueError: The network has nothing to train.
    """
    trained = [p for p in network.parameters() if p.requires_grad]
    if not trained:
        raise ValueError("network: expected parameters that require a gradient, got none")
    groups = (
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    )
    return [group for group in groups if group["params"]]


def make_optimizer(network: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter, arXiv:1711.05101); on a GPU one fused kernel for all."""
    groups = parameter_groups(network, config.weight_decay)
    on_gpu = all(p.is_cuda for group in groups for p in group["params"])
    return torch.optim.AdamW(groups, lr=config.lr, betas=BETAS, fused=on_gpu or None)


def trained_parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """The parameters that an optimizer steps."""
    return [p for group in optimizer.param_groups for p in group["params"]]
