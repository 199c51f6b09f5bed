"""The clock: training steps by time and memory, stage by stage."""

from .run import record_clock

__all__ = ["record_clock"]
