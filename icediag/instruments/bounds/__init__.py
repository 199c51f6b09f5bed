"""Bounds: intervals carried through the eager program, witnesses, and numerical poles."""

from .run import record_bounds

__all__ = ["record_bounds"]
