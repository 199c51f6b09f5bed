"""SARIF 2.1.0, for code hosts and editors (OASIS, "Static Analysis Results Interchange Format")."""

import json
from typing import Any
from urllib.parse import quote

from icediag.checks import CHECKS
from icediag.finding import Diagnosis, Finding
from icediag.matching import fingerprints
from icediag.plain import to_plain
from icediag.recording import Location, Recording

from .pages import Page, page_of

SCHEMA = (
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
)
#: What relative paths start from: code hosts take it for the root of the repository.
ROOT = "SRCROOT"


def render_sarif(recording: Recording, diagnosis: Diagnosis) -> str:
    """Render.

    Returns:
        A SARIF log with one run: a rule a check, a result a finding, accepted ones suppressed.
    """
    findings = (*diagnosis.findings, *diagnosis.accepted)
    looked = {*diagnosis.checks, *(finding.name for finding in findings)}
    pages = [page for page in map(page_of, CHECKS) if page.name in looked]
    number = {page.code: i for i, page in enumerate(pages)}
    results = []
    for i, (finding, word) in enumerate(zip(findings, fingerprints(findings), strict=True)):
        result = _result(recording, finding, word)
        if finding.code in number:
            result["ruleIndex"] = number[finding.code]
        if i >= len(diagnosis.findings):
            result["suppressions"] = [{"kind": "external"}]
        results.append(result)
    run: dict[str, Any] = {
        "tool": {
            "driver": {
                "name": "icediag",
                "rules": [_rule(page) for page in pages],
            }
        },
        "originalUriBaseIds": {
            ROOT: {"description": {"text": "The folder that holds the top-level package."}}
        },
        "invocations": [
            {
                "executionSuccessful": recording.came_through,
                "toolExecutionNotifications": [
                    {
                        "level": "note",
                        "message": {"text": f"could not judge {item.name}: {item.reason}"},
                    }
                    for item in diagnosis.not_judged
                ],
            }
        ],
        "columnKind": "unicodeCodePoints",
        "results": results,
        "properties": {"pipeline": diagnosis.pipeline, "verdict": diagnosis.verdict},
    }
    log = {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}
    return json.dumps(to_plain(log), indent=1, allow_nan=False) + "\n"


def place_of(recording: Recording, finding: Finding) -> Location | None:
    """The line of a finding, else that where its stage is defined; None where neither is known."""
    if finding.location is not None:
        return finding.location
    named = [stage.location for stage in recording.stages if stage.name == finding.stage]
    return next((place for place in named if place is not None), None)


def file_of(recording: Recording, location: Location) -> str:
    """The file from the folder that the command ran in, where it lies below that."""
    files = recording.source.files if recording.source is not None else {}
    return files.get(location.file, location.file)


def _rule(page: Page) -> dict[str, Any]:
    sections = page.sections.items()
    return {
        "id": page.code,
        "name": "".join(word.capitalize() for word in page.name.split("-")),
        "shortDescription": {"text": page.title},
        "fullDescription": {"text": page.sections.get("Why it hurts") or page.title},
        "help": {
            "text": "\n\n".join(f"{heading}: {text}" for heading, text in sections) or page.title,
            "markdown": "\n\n".join(f"**{heading}**\n\n{text}" for heading, text in sections)
            or page.title,
        },
    }


def _result(recording: Recording, finding: Finding, word: str) -> dict[str, Any]:
    location: dict[str, Any] = {
        "logicalLocations": [{"name": finding.stage, "kind": "stage"}],
    }
    # Code hosts refuse a result without a file: where none is known, that of the first stage.
    defined = (stage.location for stage in recording.stages if stage.location is not None)
    place = place_of(recording, finding) or next(defined, None)
    if place is not None:
        location["physicalLocation"] = {
            "artifactLocation": {"uri": quote(file_of(recording, place)), "uriBaseId": ROOT},
            "region": {"startLine": max(1, place.line)},
        }
    properties: dict[str, Any] = {"remedy": finding.remedy, "evidence": dict(finding.evidence)}
    if finding.effect is not None:
        properties["effect"] = dict(finding.effect)
    if finding.cause is not None:
        properties["cause"] = finding.cause
    return {
        "ruleId": finding.code,
        "level": finding.severity,
        "message": {"text": f"{finding.stage}: {finding.message} {finding.remedy}"},
        "locations": [location],
        "partialFingerprints": {"icediagFinding/v1": word},
        "properties": properties,
    }
