"""JUnit XML, for build servers: one test case a check."""

import re
from xml.etree import ElementTree as ET

from icediag.checks import CHECKS
from icediag.finding import Diagnosis, Finding
from icediag.recording import FLOW, Recording, Unjudged

#: What XML 1.0 cannot hold, not even escaped.
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def render_junit(recording: Recording, diagnosis: Diagnosis) -> str:
    """Render.

    An error or warning fails its check's case; notes and what is accepted are told with it, and
    what could not be judged is skipped with its reason. A part of the pipeline that raised is an
    error.
    """
    names = [check.NAME for check in CHECKS]
    unjudged: dict[str, list[Unjudged]] = {}
    for item in diagnosis.not_judged:
        unjudged.setdefault(item.name, []).append(item)
    wanted = [*unjudged, *diagnosis.checks, *(finding.name for finding in diagnosis.findings)]
    order = sorted(
        dict.fromkeys(wanted), key=lambda name: names.index(name) if name in names else -1
    )
    codes = {check.NAME: check.CODE for check in CHECKS}
    codes |= {finding.name: finding.code for finding in diagnosis.findings}
    told = [("", finding) for finding in diagnosis.findings]
    told += [("accepted: ", finding) for finding in diagnosis.accepted]
    cases = [
        _case(
            recording.pipeline,
            name,
            codes.get(name, ""),
            [finding for finding in diagnosis.findings if finding.name == name],
            [f"{word}{_told(finding)}" for word, finding in told if finding.name == name],
            unjudged.get(name, []),
        )
        for name in order
    ]
    suite = ET.Element("testsuite", {"name": _text(f"icediag {recording.pipeline}")})
    for word, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(word, str(sum(case.find(tag) is not None for case in cases)))
    suite.set("tests", str(len(cases)))
    suite.extend(cases)
    root = ET.Element("testsuites", dict(suite.attrib))
    root.append(suite)
    ET.indent(root, " ")
    text = ET.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="utf-8"?>\n{text}\n'


def _case(
    pipeline: str,
    name: str,
    code: str,
    findings: list[Finding],
    told: list[str],
    unjudged: list[Unjudged],
) -> ET.Element:
    case = ET.Element(
        "testcase",
        {"classname": _text(f"icediag.{pipeline}"), "name": _text(f"{code} {name}".strip())},
    )
    serious = [finding for finding in findings if finding.severity != "note"]
    if serious:
        failure = ET.SubElement(
            case,
            "failure",
            {"type": serious[0].severity, "message": _text(serious[0].message)},
        )
        failure.text = _text("\n\n".join(told))
    elif unjudged:
        tag = "error" if name in FLOW else "skipped"
        reason = "; ".join(item.reason for item in unjudged)
        ET.SubElement(case, tag, {"message": _text(reason)})
    if told and not serious:
        ET.SubElement(case, "system-out").text = _text("\n\n".join(told))
    return case


def _told(finding: Finding) -> str:
    place = f" ({finding.location.file}:{finding.location.line})" if finding.location else ""
    head = f"{finding.severity} {finding.code} {finding.name} at {finding.stage}{place}"
    return f"{head}\n{finding.message}\n-> {finding.remedy}"


def _text(text: str) -> str:
    return _NOT_XML.sub("?", text)
