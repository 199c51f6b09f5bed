"""A public collection of faults, each with its clean twin, over pipelines in many styles."""
