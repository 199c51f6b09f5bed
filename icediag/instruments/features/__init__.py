"""Features: what comes from the batch and reaches the first learned layers."""

from .run import record_features

__all__ = ["record_features"]
