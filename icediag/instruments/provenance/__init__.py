"""Provenance: which raw column reached which stage, and by what map."""
