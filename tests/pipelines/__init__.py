"""Pipelines in other styles than ours, as users write them."""
