"""Annotations of GitHub Actions: lines that the runner turns into remarks beside the code."""

from icediag.finding import Diagnosis
from icediag.recording import Recording

from .sarif import file_of, place_of

#: The runner's word for each severity.
COMMANDS = {"error": "error", "warning": "warning", "note": "notice"}


def render_github(recording: Recording, diagnosis: Diagnosis) -> str:
    """Render: one line a finding, and a notice for all that could not be judged.

    Returns:
        Workflow commands; they work where they are printed to standard output.
    """
    lines = []
    for finding in diagnosis.findings:
        properties = {}
        place = place_of(recording, finding)
        if place is not None:
            properties["file"] = file_of(recording, place)
            properties["line"] = str(place.line)
        properties["title"] = f"{finding.code} {finding.name} at {finding.stage}"
        settings = ",".join(f"{key}={_property(value)}" for key, value in properties.items())
        text = _data(f"{finding.message}\n{finding.remedy}")
        lines.append(f"::{COMMANDS[finding.severity]} {settings}::{text}\n")
    if diagnosis.not_judged:
        text = "\n".join(f"{item.name}: {item.reason}" for item in diagnosis.not_judged)
        lines.append(f"::notice title=icediag could not judge::{_data(text)}\n")
    return "".join(lines)


def _data(text: str) -> str:
    """As the runner unescapes it: `%`, carriage return and newline by their numbers."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    """The same for a property, which ends at a comma and whose list ends at a colon."""
    return _data(text).replace(":", "%3A").replace(",", "%2C")
