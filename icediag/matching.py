"""Which findings of two diagnoses are the same: by what they say, not by line number.

Code moves, and numbers differ from run to run. A finding is known again by its check, its stage,
its file and the words of its evidence, with numbers left out; where several are alike, by order.
"""

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from icediag.finding import SEVERITIES, Finding

_NUMBER = re.compile(r"[-+]?(?:\d[\d,]*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")

Key = tuple[object, ...]


@dataclass(frozen=True, kw_only=True)
class Matched:
    """Two sets of findings side by side.

    Attributes:
        same: Findings that are in both: (old, new).
        new: Findings that are in the second alone.
        gone: Findings that are in the first alone.
    """

    same: tuple[tuple[Finding, Finding], ...] = ()
    new: tuple[Finding, ...] = ()
    gone: tuple[Finding, ...] = ()

    @property
    def worse(self) -> tuple[tuple[Finding, Finding], ...]:
        """Those of `same` that are more severe than they were."""
        rank = SEVERITIES.index
        return tuple(pair for pair in self.same if rank(pair[1].severity) < rank(pair[0].severity))


def key_of(finding: Finding) -> Key:
    """What a finding is known again by."""
    words = tuple(
        (name, _NUMBER.sub("#", value))
        for name, value in sorted(finding.evidence.items())
        if isinstance(value, str)
    )
    file = finding.location.file if finding.location is not None else None
    return finding.code, finding.stage, file, words


def match(old: Iterable[Finding], new: Iterable[Finding]) -> Matched:
    """Put findings side by side.

    Where several have the same key, they are paired in the order of their lines: of three loops of
    one stage, two of them known, the last one is new.
    """
    before: defaultdict[Key, list[Finding]] = defaultdict(list)
    after: defaultdict[Key, list[Finding]] = defaultdict(list)
    for finding in old:
        before[key_of(finding)].append(finding)
    for finding in new:
        after[key_of(finding)].append(finding)
    # A file that was renamed, or a finding whose line became known, is the same finding.
    for key in [key for key in before if key not in after]:
        twins = [other for other in after if other not in before and _without_file(other, key)]
        if len(twins) == 1:
            before[twins[0]] = before.pop(key)
    same: list[tuple[Finding, Finding]] = []
    fresh: list[Finding] = []
    gone: list[Finding] = []
    for key in {**after, **before}:
        olds, news = sorted(before[key], key=_line), sorted(after[key], key=_line)
        pairs = list(zip(olds, news, strict=False))
        same += pairs
        fresh += news[len(pairs) :]
        gone += olds[len(pairs) :]
    return Matched(same=tuple(same), new=tuple(fresh), gone=tuple(gone))


def _without_file(one: Key, other: Key) -> bool:
    return (one[:2], one[3:]) == (other[:2], other[3:])


def _line(finding: Finding) -> int:
    return finding.location.line if finding.location is not None else 0
