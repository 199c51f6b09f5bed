"""Gradient flow: what comes back to each stage and parameter, and what a step makes of it."""

from .run import record_gradients

__all__ = ["record_gradients"]
