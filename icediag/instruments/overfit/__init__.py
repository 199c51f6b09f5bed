"""Overfit: can the model learn one batch by heart, and where not, why not?"""

from .run import record_overfit

__all__ = ["record_overfit"]
