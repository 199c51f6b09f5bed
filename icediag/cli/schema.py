"""`icediag schema`: what the files that icediag writes hold, for programs that read them."""

import json
import sys
from typing import Annotated, Any, Literal

import typer

Document = Literal["diagnosis", "recording", "baseline"]


def schema(
    document: Annotated[Document, typer.Argument(metavar="diagnosis|recording|baseline")],
) -> int:
    """Print the JSON Schema of a file that icediag writes."""
    sys.stdout.write(json.dumps(schema_of_document(document), indent=1) + "\n")
    return 0


def schema_of_document(document: Document) -> dict[str, Any]:
    """The JSON Schema of what a file of icediag holds."""
    from icediag.baseline import BASELINE_VERSION, Baseline
    from icediag.finding import DIAGNOSIS_VERSION, Diagnosis
    from icediag.recording import VERSION, Recording
    from icediag.schema import schema_of

    verdict = {"type": "string", "description": str(Diagnosis.verdict.__doc__)}
    kinds: dict[Document, tuple[type, int, dict[str, Any]]] = {
        "diagnosis": (Diagnosis, DIAGNOSIS_VERSION, {"verdict": verdict}),
        "recording": (Recording, VERSION, {}),
        "baseline": (Baseline, BASELINE_VERSION, {}),
    }
    kind, version, more = kinds[document]
    return schema_of(kind, name=document, version=version, more=more)
