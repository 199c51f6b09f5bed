"""Which findings of two diagnoses are the same: by what they say, not by line number.

Code moves, and numbers differ from run to run. A finding is known again by its check, its stage,
its file and the words of its evidence, with numbers left out; where several are alike, by order.
A line of code is known again by what stands in it.
"""

import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from icediag.finding import SEVERITIES, Finding
from icediag.place import Location

_NUMBER = re.compile(r"[-+]?(?:\d[\d,]*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")

#: Entries of the evidence that say what a finding is about; others say how it was seen.
SUBJECTS = frozenset(
    {"argument", "attribute", "axis", "buffer", "column", "declared", "feature", "op", "operation"}
    | {"output", "owner", "parameter", "path", "role", "tensor", "what"}
)
#: Floats that JSON has not are texts in a diagnosis that was saved.
_FLOATS = ("nan", "inf", "-inf")

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
    return _key(finding, frozenset(finding.evidence))


def subject_of(finding: Finding) -> Key:
    """The same, of what a finding is about alone: how it was come by may differ between runs."""
    return _key(finding, SUBJECTS)


def _key(finding: Finding, names: frozenset[str]) -> Key:
    words = tuple(
        (name, _NUMBER.sub("#", value))
        for name, value in sorted(finding.evidence.items())
        if name in names and isinstance(value, str) and value not in _FLOATS
    )
    file = finding.location.file if finding.location is not None else None
    return finding.code, finding.stage, file, words


def fingerprint(finding: Finding) -> str:
    """`subject_of` as 32 hexadecimal digits, for formats that want one word."""
    return hashlib.sha256(json.dumps(subject_of(finding)).encode()).hexdigest()[:32]


def fingerprints(findings: Sequence[Finding]) -> list[str]:
    """A word for each finding that no other has and that another run gives again.

    Those that are alike are numbered in the order of their lines.
    """
    words = [fingerprint(finding) for finding in findings]
    counts: Counter[str] = Counter()
    for i in sorted(range(len(findings)), key=lambda i: _line(findings[i])):
        counts[words[i]] += 1
        words[i] = f"{words[i]}:{counts[words[i]]}"
    return words


def match(old: Iterable[Finding], new: Iterable[Finding]) -> Matched:
    """Put findings side by side: by all their words, then what is left by what it is about.

    Where several have the same key, they are paired in the order of their lines: of three loops of
    one stage, two of them known, the last one is new.
    """
    alike = _match(old, new, key_of)
    about = _match(alike.gone, alike.new, subject_of)
    return Matched(same=alike.same + about.same, new=about.new, gone=about.gone)


def _match(
    old: Iterable[Finding], new: Iterable[Finding], key_of: Callable[[Finding], Key]
) -> Matched:
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


def match_lines(
    old: Mapping[Location, str], new: Mapping[Location, str]
) -> dict[Location, Location]:
    """Which lines of new code are which of old code: new line -> old line.

    Within a file, lines with the same text in the same order; then lines that were left over and
    whose text is in one other place alone, as in a file that was renamed. A line without a text
    (its source was not there) is known by its number.

    Args:
        old: Lines that matter -> what stands in them, "" where that is not known.
        new: The same of the new code.
    """
    found: dict[Location, Location] = {}
    for file in {place.file for place in new}:
        before = sorted((p for p in old if p.file == file), key=_number)
        after = sorted((p for p in new if p.file == file), key=_number)
        olds, news = (
            [side[p] or f"line {p.line}" for p in places]
            for side, places in ((old, before), (new, after))
        )
        matcher = SequenceMatcher(None, olds, news, autojunk=False)
        for a, b, size in matcher.get_matching_blocks():
            found.update(zip(after[b : b + size], before[a : a + size], strict=True))
    taken = set(found.values())
    left = [place for place in old if place not in taken and old[place]]
    for place in new:
        if place in found or not new[place]:
            continue
        twins = [other for other in left if old[other] == new[place]]
        alike = [other for other in new if other not in found and new[other] == new[place]]
        if len(twins) == 1 == len(alike):
            found[place] = twins[0]
    return found


def _number(place: Location) -> int:
    return place.line
