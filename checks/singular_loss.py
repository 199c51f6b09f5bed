"""The loss or its gradient is not finite where it is to lead.

What it looks at:
    The loss away from the model, in value and gradient: at the targets themselves and at what one
    gets by going down its slope from the model's predictions, at the opposite of that where
    predictions are bounded, at 0, and at distances from 1e-7 to 1e-2 of these. Then over ranges:
    each column of the predictions, such as a concentration or a width, and the size of all, with
    the others a few percent off the best.
Why it hurts:
    The nearer the truth, the nearer to NaN; one event is enough, and all weights are NaN after the
    next step.
A bad run:
    arccos of a scalar product, whose slope at 1 is infinite; sqrt of a sum of squares at 0;
    kappa / sinh(kappa), which overflows from 89 on in float32.
What to do:
    Use a form whose slope is finite: atan2 of cross and scalar product, the square, log-sum-exp;
    or keep the argument from the pole by a clamp before the operation.
Limits:
    Where only an exact hit is singular and a single row does not suffice, it is a note; so is a
    loss that is singular for predictions of exactly 0, as a last layer of weights 0 gives. Ranges
    end at 1e5 for what is positive and at 30 for the rest, and count as far as the loss falls.
"""

from icediag.finding import Finding, Severity
from icediag.recording import Recording, Unjudged
from icediag.records.loss import LossRecord, Point, Sweep

from .loss_ignores_targets import missing

CODE = "L21"
NAME = "singular-loss"
NEEDS = ("loss_probe",)

#: Distances below this are a few units in the last place: an exact hit.
EXACT = 1e-6
PLACES = {
    "best": "where it is smallest",
    "opposite": "where it is largest, opposite of the truth",
    "zero": "for predictions of 0",
}


def _severity(point: Point) -> Severity:
    assert point.width is not None
    if point.where == "best":
        if point.width >= EXACT:
            return "error"
        return "warning" if point.alone else "note"
    return "warning" if point.width >= EXACT else "note"


def _of_point(record: LossRecord, point: Point) -> Finding:
    assert point.width is not None
    what = (
        f"{record.name} itself"
        if point.bad_values
        else f"{point.bad_slopes} of {point.slopes} slopes of {record.name} by the predictions"
    )
    near = f"up to a relative distance of {point.width:g}" if point.width else "there alone"
    back = "the way back through " if point.backward else ""
    at = f", at {point.argument:.4g}" if point.argument is not None and not point.backward else ""
    begins = f"; it begins in {back}{point.operation}{at}" if point.operation else ""
    return Finding(
        code=CODE,
        name=NAME,
        severity=_severity(point),
        stage="loss",
        message=(
            f"{PLACES[point.where].capitalize()}, {what} "
            f"{'is' if point.bad_values else 'are'} not finite, {near}{begins}."
        ),
        evidence={
            "where": point.where,
            "loss": point.loss,
            "loss_now": point.scale,
            "bad_slopes": point.bad_slopes,
            "slopes": point.slopes,
            "width": point.width,
            "one_row_is_enough": point.alone,
            "operation": point.operation,
        },
        remedy="Use a form with a finite slope there, or clamp the argument before the operation.",
        location=point.location or record.location,
    )


def _named(sweep: Sweep) -> str:
    of = f"{sweep.output} " if sweep.output else ""
    if sweep.column is None:
        return f"the size of {of.strip() or 'the predictions'}"
    return f"column {sweep.column} of {of.strip() or 'the predictions'}"


def _of_sweep(record: LossRecord, sweep: Sweep) -> Finding:
    others = f"with the other predictions {sweep.error:.0%} off the best"
    evidence = {
        "output": sweep.output,
        "column": sweep.column,
        "error": sweep.error,
        "stops_at": sweep.stops_at,
        "jump_at": sweep.jump_at,
        "jump": sweep.jump,
        "smallest": sweep.smallest,
        "operation": sweep.operation,
    }
    if sweep.stops_at is not None:
        begins = f", in {sweep.operation}" if sweep.operation else ""
        return Finding(
            code=CODE,
            name=NAME,
            severity="error",
            stage="loss",
            message=(
                f"{record.subject} falls as {_named(sweep)} goes towards {sweep.stops_at:.4g} "
                f"({others}), and there it or its slope is not finite{begins}."
            ),
            evidence=evidence,
            remedy="Use a form that does not overflow: log-sum-exp, log1p, softplus, or a series.",
            location=sweep.location or record.location,
        )
    return Finding(
        code=CODE,
        name=NAME,
        severity="warning",
        stage="loss",
        message=(
            f"{record.subject} jumps by {sweep.jump:.3g} where {_named(sweep)} passes "
            f"{sweep.jump_at:.6g} ({others}); it spans {sweep.span:.3g} on the way."
        ),
        evidence=evidence,
        remedy="Make both branches agree where they meet.",
        location=record.location,
    )


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Name the worst place of each kind."""
    record = recording.loss_probe
    assert record is not None
    findings: list[Finding] = []
    bad = [point for point in record.points if point.width is not None]
    for where in PLACES:
        points = [point for point in bad if point.where == where]
        if points and not (where == "opposite" and findings):
            worst = max(points, key=lambda point: (bool(point.alone), point.width or 0.0))
            findings.append(_of_point(record, worst))
    stops = [sweep for sweep in record.sweeps if sweep.stops_at is not None]
    if stops and not any(point.bad_values for point in bad):
        findings.append(_of_sweep(record, stops[0]))
    jumps = [sweep for sweep in record.sweeps if sweep.jump_at is not None]
    if jumps:
        findings.append(_of_sweep(record, max(jumps, key=lambda sweep: sweep.jump)))
    if findings or record.points:
        return tuple(findings)
    reason = f"no predictions were found for which {record.name} is smaller than now"
    parts = ("loss", "best predictions", "dataset item")
    return missing(record, parts, NAME) or Unjudged(name=NAME, reason=reason)
