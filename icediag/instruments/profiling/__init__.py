"""The profile of a step: counted, timed, projected, and compared with another."""
