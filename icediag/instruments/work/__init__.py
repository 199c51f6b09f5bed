"""Work: counts operations and lines of a training step at several batch sizes."""

from .operations import record_operations

__all__ = ["record_operations"]
