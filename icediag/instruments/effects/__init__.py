"""Effects: what a fault costs the training, measured by training without it."""

from .run import record_effects

__all__ = ["record_effects"]
