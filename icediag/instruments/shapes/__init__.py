"""Symbolic axes: which sizes follow the data, what they are sizes of, and what is padding."""
