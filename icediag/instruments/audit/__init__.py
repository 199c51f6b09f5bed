"""An audit of a whole data set: what is in it, and what is not as it should be."""

from .run import audit

__all__ = ["audit"]
