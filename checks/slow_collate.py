"""Collate takes many times as long as joining the same rows.

What it looks at:
    Collate beside `torch.cat` (`torch.stack` where all are of one shape) of the same tensors, in
    turn in one run: the lower quartile of the ratios, and the fastest run of collate beside the
    median of joining. Then the time, less what other programs took, beside the projected step.
Why it hurts:
    Whatever a batch needs beside its rows, an index or a mask, comes from their lengths by a few
    operations on whole tensors. What is done sample by sample costs some microseconds each, in a
    process that has nothing else to do, and no device makes it faster.
A bad run:
    One padded tensor filled row by row, `unique` called for every event, tensors made of lists.
What to do:
    Join all rows at once; make indices by `repeat_interleave`, `cumsum` and `arange` of lengths.
Limits:
    Work that has to be done somewhere, such as building graphs, is work too: it may be stored, or
    done on the device. Workers hide a collate that takes less than a step each.
"""

import statistics

from icediag.finding import Finding, Severity
from icediag.recording import Recording, Unjudged
from icediag.records.clock import middle

CODE = "P21"
NAME = "slow-collate"
NEEDS = ("clock", "projection")

#: Times as long as joining the same rows.
TIMES = 10.0
#: Seconds, and share of the projected step, below which it does not matter.
SECONDS, SHARE = 5e-3, 0.15


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Hold collate against joining the same rows."""
    clock, projection = recording.clock, recording.projection
    assert clock is not None and projection is not None
    collate = clock.collate
    if collate is None:
        why = clock.missing.get("collate", "samples hold no tensors to compare with")
        return Unjudged(name=NAME, reason=why)
    ratios = collate.ratios
    joined = middle(collate.joined_s)
    if len(ratios) < 3 or joined <= 0:
        return Unjudged(name=NAME, reason="collate could not be timed beside joining its rows")
    lower = statistics.quantiles(ratios, n=4, method="inclusive")[0]
    fastest = min(collate.collate_s)
    took = fastest / clock.crowding
    share = took / projection.step_s if projection.step_s > 0 else 0.0
    if min(lower, fastest / joined) < TIMES or took < SECONDS or share < SHARE:
        return ()
    # Below a step, one worker hides it.
    severity: Severity = "warning" if share >= 1 else "note"
    return (
        Finding(
            code=CODE,
            name=NAME,
            severity=severity,
            stage="collate",
            message=(
                f"Collating {collate.samples:,} samples takes {1e3 * took:.3g} ms, "
                f"{lower:.3g} times what joining their {collate.rows:,} rows takes, and "
                f"{_of_step(share)} the step as it is projected on {projection.title}."
            ),
            evidence={
                "collate_s": took,
                "joined_s": joined,
                "lower_quartile": lower,
                "repeats": len(ratios),
                "samples": collate.samples,
                "rows": collate.rows,
                "bytes_in": collate.bytes_in,
                "bytes_out": collate.bytes_out,
                "projected_step_s": projection.step_s,
                "crowding": clock.crowding,
            },
            remedy=(
                "Join all rows at once, and make indices from their lengths by operations on whole "
                "tensors (repeat_interleave, cumsum, arange)."
            ),
            location=collate.location,
        ),
    )


def _of_step(share: float) -> str:
    return f"{100 * share:.0f} % of" if share < 2 else f"{share:,.0f} times"
