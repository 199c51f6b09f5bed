"""Training: `loop.train` and what it needs, one part a file.

`config`, `seeds`, `loader`, `optimizer` and `schedule` go in; `run` is the loop itself; `evaluate`
scores, `recorder` counts and `progress` tells; `checkpoint`, `metrics` and `curve` are left behind.
"""
