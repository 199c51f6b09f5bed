"""`torch.compile` for the parts that gain from it."""

from typing import Any

from torch import nn


def compile_parts(network: nn.Module, **options: Any) -> list[str]:
    """Compile the token-wise parts of a `DirectionNetwork` in place.

    Those are the nets that work on one flat tensor, whose only changing axis is its number of rows:
    the DOM encoder's two and each layer's feed-forward. Attention stays as it is: its rectangles
    differ in number and size with every batch, and each new set of them would be compiled anew.
    `Module.compile` keeps the names in `state_dict`, so that checkpoints fit with and without.

    Args:
        network: Parts that it does not have are passed over.
        options: For `torch.nn.Module.compile`, beside `dynamic=True`.

    Returns:
        Names of the modules compiled.
    """
    parts = [
        name
        for name, _ in network.named_modules()
        if name in ("dom_encoder.encode", "dom_encoder.decode") or name.endswith(".feed_forward")
    ]
    for name in parts:
        network.get_submodule(name).compile(dynamic=True, **options)
    return parts
