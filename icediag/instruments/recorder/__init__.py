"""The recorder: one batch through a whole pipeline, with a fact for every tensor it meets."""
