"""Trees of tensors: walked, rebuilt, moved by rows, written to files."""
