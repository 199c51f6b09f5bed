"""The bench: parts of the built-in training step beside their yardsticks."""
