"""Rules for random numbers: unknown, whatever their arguments are."""

import torch

from .calls import Call, rule
from .intervals import Interval, mended


@rule("bernoulli", needs_tracked=False)
def _coin(c: Call) -> Interval:
    zero = torch.zeros(c.out.shape, dtype=torch.float64, device=c.out.device)
    return Interval(zero, zero + 1)


@rule("rand", "rand_like", needs_tracked=False)
def _uniform_01(c: Call) -> Interval:
    zero = torch.zeros(c.out.shape, dtype=torch.float64, device=c.out.device)
    return Interval(zero, zero + 1)


@rule("uniform", needs_tracked=False)
def _uniform(c: Call) -> Interval:
    zero = torch.zeros(c.out.shape, dtype=torch.float64, device=c.out.device)
    return c.near(Interval(zero + float(c.args["from"]), zero + float(c.args["to"])))


@rule(
    "randn",
    "randn_like",
    "normal",
    "exponential",
    "cauchy",
    "log_normal",
    "geometric",
    "multinomial",
    "poisson",
    needs_tracked=False,
)
def _random(c: Call) -> Interval:
    """Random numbers without an end, or whose end depends on arguments."""
    out = c.anything()
    positive = c.name in ("exponential", "log_normal", "geometric", "multinomial", "poisson")
    return Interval(out.lo.clamp_min(0), out.hi) if positive else out


@rule("randint", "randint_like", "randperm", "random", needs_tracked=False)
def _random_integers(c: Call) -> Interval | None:
    low, high = c.args.get("low", c.args.get("from", 0)), c.first("high", "to", "n")
    if high is None:
        return c.anything()
    zero = torch.zeros(c.out.shape, dtype=torch.float64, device=c.out.device)
    return Interval(zero + float(low or 0), zero + float(high) - 1)


@rule("native_dropout")
def _dropout(c: Call) -> list[Interval | None]:
    x, p = c["input"], float(c.args["p"])
    if not c.args["train"]:
        return [Interval(x.lo.clone(), x.hi.clone()), None]
    factor = 1 / (1 - p) if p < 1 else 0.0
    out = Interval((x.lo * factor).clamp_max(0), (x.hi * factor).clamp_min(0))
    return [c.near(mended(out)), _mask(c)]


def _mask(c: Call) -> Interval:
    zero = torch.zeros(c.outs[1].shape, dtype=torch.float64, device=c.out.device)
    return Interval(zero, zero + 1)
