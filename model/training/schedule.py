"""Learning rate of each step, as a function: nothing to keep, nothing to restore."""

import math

from .config import TrainConfig

#: Last learning rate of the cosine, as a share of the peak: a step at 0 would be a step wasted.
COSINE_FLOOR = 0.01
#: First and last learning rate of one-cycle, as shares of the peak: the defaults of
#: `torch.optim.lr_scheduler.OneCycleLR` (div_factor 25, final_div_factor 1e4).
ONE_CYCLE_FIRST = 1 / 25
ONE_CYCLE_LAST = 1 / 25e4


def _cosine(start: float, end: float, share: float) -> float:
    """From `start` at share 0 to `end` at share 1 along half a cosine."""
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


def learning_rate(step: int, total_steps: int, config: TrainConfig) -> float:
    """Learning rate of one step.

    * `cosine`: rises in a line to `lr` over the warm-up, falls along half a cosine to 1 % of it
      (Loshchilov and Hutter, arXiv:1608.03983, without restarts).
    * `one-cycle`: rises along half a cosine from `lr` / 25 over 30 % of the steps (or the warm-up
      given), falls along another to almost nothing (Smith and Topin, arXiv:1708.07120); AdamW's
      betas stay as they are.
    * `constant`: rises in a line over the warm-up and stays.

    Args:
        step: 0 for the first step, `total_steps` - 1 for the last.
        total_steps: Steps of the whole run, >= 1.
        config: Peak, warm-up and shape.

    Returns:
        The learning rate, > 0. Example: with a warm-up of 4 steps the first five are 1/4, 2/4, 3/4,
        4/4 and 4/4 of the peak.

    Raises:
        ValueError: `step` is not in 0..total_steps - 1.
    """
    if not 0 <= step < total_steps:
        raise ValueError(f"step: expected 0..{total_steps - 1}, got {step}")
    warmup = config.warmup_steps(total_steps)
    last = total_steps - 1
    if config.schedule == "one-cycle":
        top = warmup - 1  # the step at the peak; in a short run there may be no rise at all
        if step <= top:
            share = step / top if top else 1.0
            return config.lr * _cosine(ONE_CYCLE_FIRST, 1.0, share)
        return config.lr * _cosine(1.0, ONE_CYCLE_LAST, (step - top) / (last - top))
    if step < warmup:
        return config.lr * (step + 1) / warmup
    if config.schedule == "constant" or last == warmup:
        return config.lr
    return config.lr * _cosine(1.0, COSINE_FLOOR, (step - warmup) / (last - warmup))
