"""Training flow: how samples come to the training, and what a training step does in which order."""

from .run import record_training_flow

__all__ = ["record_training_flow"]
