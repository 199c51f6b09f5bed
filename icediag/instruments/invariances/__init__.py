"""Invariances: what must not change when a batch is put together otherwise."""

from .run import record_invariances

__all__ = ["record_invariances"]
