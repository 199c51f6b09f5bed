"""Findings are known again by what they say, wherever their line went."""

import dataclasses
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from icediag.finding import Finding
from icediag.matching import match
from icediag.place import Location


def finding(
    line: int | None = 10, file: str = "a.py", code: str = "N01", stage: str = "head", **more: Any
) -> Finding:
    evidence = {"argument": "times", "rows": 100} | more.pop("evidence", {})
    return Finding(
        code=code,
        name="normalized-relative",
        severity=more.pop("severity", "error"),
        stage=stage,
        message=more.pop("message", "m"),
        evidence=evidence,
        remedy="r",
        location=None if line is None else Location(file=file, line=line),
    )


def test_a_line_that_moved_and_numbers_that_changed_are_the_same_finding() -> None:
    old = finding(10, evidence={"map": "(time - 10000) / 30000", "rows": 100})
    new = finding(99, evidence={"map": "(time - 9,500.5) / 2e4", "rows": 7}, message="other words")
    assert match([old], [new]).same == ((old, new),)
    assert match([old], [new]).new == match([old], [new]).gone == ()


def test_another_way_to_see_it_is_the_same_finding() -> None:
    old = [finding(10, evidence={"argument": a, "how": "batch"}) for a in ("times", "charges")]
    new = [finding(12, evidence={"argument": a, "how": "search"}) for a in ("charges", "times")]
    matched = match(old, new)
    assert matched.same == ((old[0], new[1]), (old[1], new[0])) or matched.same == (
        (old[1], new[0]),
        (old[0], new[1]),
    )
    assert matched.new == matched.gone == ()


def test_another_argument_stage_or_check_is_another_finding() -> None:
    old = finding()
    for new in (
        finding(evidence={"argument": "charges"}),
        finding(stage="relative_encoder"),
        finding(code="N02"),
    ):
        matched = match([old], [new])
        assert (matched.same, matched.new, matched.gone) == ((), (new,), (old,))


def test_one_more_of_the_same_kind_is_new() -> None:
    old = [finding(10), finding(30)]
    new = [finding(12), finding(32), finding(50)]
    matched = match(old, new)
    assert matched.same == ((old[0], new[0]), (old[1], new[1]))
    assert matched.new == (new[2],) and matched.gone == ()


def test_a_renamed_file_and_a_line_that_became_known() -> None:
    for old in (finding(file="old.py"), finding(None)):
        new = finding(file="new.py")
        assert match([old], [new]).same == ((old, new),)
    # Not where it could be either of two.
    matched = match([finding(file="old.py")], [finding(file="b.py"), finding(file="c.py")])
    assert matched.same == () and len(matched.new) == 2 and len(matched.gone) == 1


def test_a_note_that_became_an_error_is_worse() -> None:
    old, new = finding(severity="note"), finding(severity="error")
    assert match([old], [new]).worse == ((old, new),)
    assert match([new], [old]).worse == () and match([new], [old]).same


many = st.lists(
    st.builds(
        finding,
        line=st.none() | st.integers(1, 5),
        file=st.sampled_from("ab"),
        code=st.sampled_from(["N01", "P01"]),
        stage=st.sampled_from("st"),
    ),
    max_size=6,
)


@given(old=many, new=many)
def test_every_finding_is_somewhere_once(old: list[Finding], new: list[Finding]) -> None:
    matched = match(old, new)

    def key(f: Finding) -> str:
        return repr(dataclasses.astuple(f))

    olds = [pair[0] for pair in matched.same] + list(matched.gone)
    news = [pair[1] for pair in matched.same] + list(matched.new)
    assert sorted(map(key, olds)) == sorted(map(key, old))
    assert sorted(map(key, news)) == sorted(map(key, new))
    assert match(new, new).new == match(new, new).gone == ()
