"""The letter as one HTML file: opens from disk, fetches nothing, and shows all that was seen.

Values from the data are escaped by the template engine. A policy in the head lets only this file's
own style and script work, so that nothing else could run or be fetched even if one slipped through.
"""

import base64
import hashlib
from functools import cache
from typing import Any

import jinja2

from icediag.checks import CHECKS
from icediag.finding import SEVERITIES, Diagnosis, Finding
from icediag.recording import Recording

from .answers import answers
from .drawing import SIGNS, After, draw_flow
from .html_parts import PARTS, glance, histograms_of
from .numbers import counted, duration, number, percent, share
from .pages import page_of
from .timing import AFTER, shares_of, strips_of
from .views import (
    columns_of,
    effect_of,
    elsewhere,
    evidence_of,
    excerpt_of,
    groups_of,
    place_of,
    range_of,
    shape_of,
    sizes_of,
    title_of,
    views_of,
    walk,
)

#: How many remedies the verdict names.
FIRST = 5
#: Tensors of a stage that are shown; of a module called with more, the rest is counted.
MOST_TENSORS = 40


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("icediag.reports", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": number,
        "duration": duration,
        "lower_first": lambda text: text[:1].lower() + text[1:],
        "place": place_of,
        "shape": shape_of,
        "sizes": sizes_of,
        "range": range_of,
        "tensor_title": title_of,
        "columns": columns_of,
        "evidence": evidence_of,
        "effect": effect_of,
    }
    environment.globals |= {"share": share, "counted": counted, "percent": percent}
    return environment


def render_html(recording: Recording, diagnosis: Diagnosis) -> str:
    """Render.

    Returns:
        A whole document.
    """
    environment = _environment()
    views = views_of(recording, diagnosis)
    shares = shares_of(recording)
    style = _raw(environment, "report.css")
    script = _raw(environment, "report.js")
    parts = [part for make in PARTS if (part := make(recording, diagnosis)) is not None]
    ids = {view.record.name: view.id for view in reversed(walk(views))}
    return environment.get_template("report.html").render(
        recording=recording,
        diagnosis=diagnosis,
        style=style,
        script=script,
        style_hash=_digest(style),
        script_hash=_digest(script),
        views=views,
        all_views=walk(views),
        ids=ids,
        outside=elsewhere(recording, diagnosis),
        flow=draw_flow(recording, views, shares, _after(recording, diagnosis)) if views else None,
        strips=strips_of(recording),
        shares=shares,
        groups=groups_of(diagnosis),
        first=_first(diagnosis),
        answers=answers(recording, diagnosis),
        parts=parts,
        glance=glance(recording),
        histograms=histograms_of(recording),
        pages={check.CODE: page_of(check) for check in CHECKS},
        excerpt=lambda finding: excerpt_of(recording, finding.location),
        severities=SEVERITIES,
        signs=SIGNS,
        most_tensors=MOST_TENSORS,
        verdict_word=_word(recording, diagnosis),
        data=_data(diagnosis),
    )


def _after(recording: Recording, diagnosis: Diagnosis) -> tuple[After, ...]:
    """What a step does after the flow, and all else that findings speak of and is no stage."""
    found: dict[str, list[Finding]] = {}
    for known in shares_of(recording).values():
        for name in AFTER:
            if name in known:
                found.setdefault(name, [])
    links: dict[str, str] = {}
    outside = {id(finding) for finding in elsewhere(recording, diagnosis)}
    for n, group in enumerate(groups_of(diagnosis), start=1):
        for i, finding in enumerate((group.finding, *group.consequences)):
            if id(finding) in outside and finding.stage:
                found.setdefault(finding.stage, []).append(finding)
                links.setdefault(finding.stage, f"#finding-{n}" + (f"-{i}" if i else ""))
    return tuple(
        After(name=name, link=links.get(name, "#time"), findings=tuple(at))
        for name, at in found.items()
    )


def _first(diagnosis: Diagnosis) -> list[tuple[int, Finding, int]]:
    """(number of the group, finding, how often its remedy is asked for) of the first remedies."""
    found: dict[tuple[str, str], tuple[int, Finding, int]] = {}
    serious = any(finding.severity != "note" for finding in diagnosis.findings)
    for i, one in enumerate(groups_of(diagnosis), start=1):
        if serious and one.finding.severity == "note":
            continue
        key = one.finding.stage, one.finding.remedy
        number_of, finding, times = found.get(key, (i, one.finding, 0))
        found[key] = number_of, finding, times + 1
    return list(found.values())[:FIRST]


def _word(recording: Recording, diagnosis: Diagnosis) -> str:
    """The class of the verdict: `error`, `warning`, `note`, or `clean`."""
    if diagnosis.findings:
        return min((f.severity for f in diagnosis.findings), key=SEVERITIES.index)
    return "clean" if recording.came_through else "warning"


def _raw(environment: jinja2.Environment, name: str) -> str:
    assert environment.loader is not None
    source, *_ = environment.loader.get_source(environment, name)
    return source


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _data(diagnosis: Diagnosis) -> Any:
    """The diagnosis as a script element can hold it: no character that could end the element."""
    text = diagnosis.to_json()
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
