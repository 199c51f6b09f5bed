"""Work: counts operations and lines of a training step at several batch sizes."""

from .lines import record_lines
from .operations import record_operations

__all__ = ["record_lines", "record_operations"]
