"""Instruments: run a pipeline and record facts. An instrument never judges."""

from .running.young import collector_off

# Nearly all that is made while torch loads stays: to look through it for garbage, again and again,
# takes a fifth of the time.
with collector_off():
    import torch as _torch  # noqa: F401
