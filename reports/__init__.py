"""The letter: pure functions from a recording and a diagnosis to text.

A report prints nothing and computes nothing: what it shows was recorded or concluded before.
"""
