"""The command line: one command a file; `main` is where an error becomes text and an exit code."""
