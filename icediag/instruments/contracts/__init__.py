"""Contracts: what signatures and the pipeline declare, held against what arrives."""
