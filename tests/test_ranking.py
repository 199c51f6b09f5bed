"""What stands first, and what stands under what."""

import dataclasses
from typing import Any

from icediag.finding import Finding, Severity
from icediag.place import Location
from icediag.ranking import blocks, cost_of, ranked


def finding(
    code: str,
    name: str,
    severity: Severity = "error",
    stage: str = "encoder",
    line: int | None = None,
    **evidence: Any,
) -> Finding:
    return Finding(
        code=code,
        name=name,
        severity=severity,
        stage=stage,
        message=f"{code} at {stage}",
        evidence=evidence,
        remedy="",
        location=None if line is None else Location(file="a.py", line=line),
    )


def order(*findings: Finding) -> list[str]:
    return [f.code for f in ranked(findings)]


def test_what_costs_most_stands_first() -> None:
    wrong = finding("N01", "normalized-relative")
    loop = finding("P01", "python-loop", "warning", lost_s=0.9, step_s=1.0)
    small = finding("P05", "slow-collate", "warning", lost_s=0.1, step_s=1.0)
    some = finding("P06", "padding-waste", "warning", lost_s=0.15, step_s=1.0)
    unknown = finding("X01", "odd", "warning")
    blocked = finding("G01", "no-gradient", stage="model")
    note = finding("P02", "host-sync", "note", projected_s=0.5, step_s=1.0)
    expected = ["G01", "P01", "N01", "P06", "P05", "X01", "P02"]
    everything = [wrong, loop, small, some, unknown, blocked, note]
    assert order(*everything) == expected
    assert order(*reversed(everything)) == expected


def test_costs() -> None:
    assert cost_of(finding("P01", "x", lost_s=0.5, projected_s=0.9, step_s=2.0)) == 0.25
    assert cost_of(finding("P01", "x", projected_s=9.0, step_s=2.0)) == 1.0
    assert cost_of(finding("P01", "x", lost_s=float("nan"), projected_s=1.0, step_s=2.0)) == 0.5
    assert cost_of(finding("P01", "x", lost_s=0.5, step_s=0.0)) is None
    assert cost_of(finding("P01", "x", share=0.5)) is None
    assert cost_of(finding("P01", "x", share_of_step=0.5)) == 0.5
    assert blocks(finding("V01", "non-finite-value"))
    assert not blocks(finding("V01", "non-finite-value", "warning"))


def test_what_a_repair_was_shown_to_win() -> None:
    shown = {"answer": "confirmed", "difference": 0.5, "as_it_is": [1.0, 1.0]}
    wrong = finding("N01", "normalized-relative")
    assert cost_of(dataclasses.replace(wrong, effect=shown)) == 0.5
    others: tuple[dict[str, Any], ...]
    others = ({"answer": "refuted"}, {"as_it_is": []}, {"difference": float("nan")})
    for other in others:
        assert cost_of(dataclasses.replace(wrong, effect=shown | other)) is None


def test_a_line_in_a_loop_stands_under_the_loop() -> None:
    loop = finding("P01", "python-loop", "warning", line=3, lost_s=0.5, step_s=1.0)
    inside = finding(
        "P02", "host-sync", "warning", line=4, in_loop="a.py:3", projected_s=0.9, step_s=1
    )
    outside = finding("P02", "host-sync", "warning", line=9, in_loop="a.py:7", stage="head")
    first, second, third = ranked((inside, outside, loop))
    assert (first.code, first.cause) == ("P01", None)
    assert (second.code, second.cause) == ("P02", "P01 at encoder")
    assert (third.stage, third.cause) == ("head", None)


def test_what_cannot_learn_stands_under_the_reason() -> None:
    flat = finding("L01", "does-not-learn", stage="model")
    reason = finding("G11", "no-optimizer-step", stage="optimizer")
    elsewhere = finding("G01", "no-gradient", stage="encoder.bias")
    placed = ranked((flat, reason))
    assert [(f.code, f.cause) for f in placed] == [("G11", None), ("L01", "G11 at optimizer")]
    # One part without a gradient does not show that nothing can be learnt.
    assert all(f.cause is None for f in ranked((flat, elsewhere)))


def test_one_map_used_twice() -> None:
    first = finding("N01", "normalized-relative", declared="charge", map="log10(charge)")
    second = finding(
        "N02", "normalized-weights", stage="pool", declared="charge", map="log10(charge)"
    )
    other = finding("N02", "normalized-weights", stage="pool", declared="charge", map="charge / 3")
    placed = ranked((first, other, second))
    assert [f.cause for f in placed] == [None, "N01 at encoder", None]


def test_nothing_is_lost_or_doubled_whatever_points_where() -> None:
    a = finding("P01", "python-loop", "warning", line=3, in_loop="a.py:4")
    b = finding("P02", "host-sync", "warning", line=4, in_loop="a.py:3")
    c = finding("P03", "other", "warning", line=5, in_loop="a.py:5")
    placed = ranked((a, b, c))
    assert sorted(f.code for f in placed) == ["P01", "P02", "P03"]
    assert ranked(placed) == placed
