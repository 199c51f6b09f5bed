"""The fixture `icediag`: a test passes or fails with what is found; torch waits until asked for."""

from importlib.metadata import entry_points

import pytest

pytest_plugins = ["pytester"]

DIAG = """
import math
import torch
from icediag import Domain, Pipeline

def made(model):
    return Pipeline(
        name="small",
        dataset=[torch.randn(2) for _ in range(8)],
        collate=torch.stack,
        model=model,
        loss=lambda predictions, batch: predictions.square().mean(),
        outputs={"zenith": Domain(0, math.pi)},
        sources=("diag",),
    )

def unbounded():
    return made(torch.nn.Linear(2, 1))

class Angle(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(2, 1)

    def forward(self, x):
        return math.pi * torch.sigmoid(self.linear(x))

def bounded():
    return made(Angle())

class Broken(torch.nn.Linear):
    def forward(self, x):
        raise RuntimeError("out of ice")

def broken():
    return made(Broken(2, 1))
"""
TESTS = """
import pytest
import diag

def test_passes(icediag):
    assert icediag.check("diag:bounded").checks == ("unbounded-output",)

def test_fails(icediag):
    icediag.check("diag:unbounded")

def test_what_it_is_told_wins(icediag):
    assert icediag.check(diag.unbounded, fail_on="never").at_least("error")
    assert icediag.check(diag.unbounded(), select=["N01"]).findings == ()

def test_cannot_run(icediag):
    icediag.check(diag.broken, fail_on="never")

def test_cannot_import(icediag):
    icediag.check("no_such:pipeline")

def test_what_is_configured(icediag):
    icediag.check()

@pytest.mark.parametrize("arguments", [{"fail_on": "all"}, {"select": "Z9"}, {"baseline": "no"}])
def test_bad_argument(icediag, arguments):
    icediag.check("diag:bounded", **arguments)
"""


def options() -> list[str]:
    """Uninstalled, the plugin has to be named."""
    installed = any(point.name == "icediag" for point in entry_points(group="pytest11"))
    return ["-p", "no:cacheprovider", *([] if installed else ["-p", "icediag.cli.pytest_plugin"])]


def test_a_test_passes_or_fails_with_what_is_found(pytester: pytest.Pytester) -> None:
    pytester.makepyprojecttoml("[tool.icediag]\nselect = 'B01'\npipeline = 'diag:bounded'\n")
    pytester.makepyfile(diag=DIAG, test_it=TESTS)
    pytester.syspathinsert()
    result = pytester.runpytest_subprocess("-W", "error", *options())
    outcomes = result.parseoutcomes()
    assert outcomes == {"passed": 3, "failed": 6}
    result.stdout.fnmatch_lines(
        [
            "*test_fails*",
            "icediag: 1 error: small, 8 samples",
            "error B01 unbounded-output at model *",
            "  zenith belongs in [[]0, 3.14159[]]*",
            "*-> Predict *",
            "*test_cannot_run*",
            "icediag could not run it: nothing found: small, 8 samples",
            "  *out of ice*",
            "*test_cannot_import*",
            "icediag: --pipeline: cannot import 'no_such'*",
        ]
    )
    text = result.stdout.str()
    assert "exception" not in text and "Traceback" not in text
    assert "fail_on: expected one of error, warning, note, never, got 'all'" in text
    assert "expected codes or names of checks, got 'Z9'" in text


def test_torch_waits_until_it_is_asked_for(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        "import sys\n\ndef test_light(icediag):\n    assert 'torch' not in sys.modules\n"
    )
    pytester.runpytest_subprocess(*options()).assert_outcomes(passed=1)
