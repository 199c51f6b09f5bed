"""Loss probe: the loss as a function of predictions and targets, away from the model."""

from .run import record_loss

__all__ = ["record_loss"]
