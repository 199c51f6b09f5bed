"""Instruments: run a pipeline and record facts. An instrument never judges."""
