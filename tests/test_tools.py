"""What developers run by hand: the table in the README, and the script that begins a check."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from icediag.checks import CHECKS
from icediag.records.versus import VersusRecord, VersusRow
from tools import new_check, readme, versus


def test_the_readme_lists_every_check() -> None:
    text = readme.README.read_text(encoding="utf-8")
    assert readme.updated(text) == text, "the README is out of date: run `make readme`"
    assert all(f"| {check.CODE} | `{check.NAME}` |" in text for check in CHECKS)
    with pytest.raises(ValueError, match="expected the lines"):
        readme.updated("no table")


def test_the_readme_takes_the_table_of_other_ways() -> None:
    def row(way: str, n: int, ms: float | None = None, **more: Any) -> VersusRow:
        arguments: dict[str, Any] = {"what": "packing", "way": way, "n_events": n, "ms": ms}
        return VersusRow(**(arguments | more))

    record = VersusRecord(
        rows=(
            *(row("ours", n, n / 10, times=1.0) for n in (32, 128, 256, 2048)),
            row("a loop", 32, 64.0, times=20.0),
            row("a loop", 128, 998.0, times=78.0),
            row("PyG", 32, note="not installed"),
            row("ours", 9_000, 1000.0, what="loading"),
        ),
        threads=2,
        load=0.1,
        cores=2,
        versions=("torch 2",),
    )
    text = versus.README.read_text(encoding="utf-8")
    new = versus.updated(text, record)
    for line in (
        "| **packing**: ours | 3.2 | 25.6 | 205 |",
        "| a loop; at 128 events 998 (78) | 64 (20) |  |  |",
        "| PyG | not installed | | |",
        "Loading, events a second of 9,000 on disk: ours 9,000.",
    ):
        assert line in new and line not in text
    assert versus.updated(new, record) == new
    with pytest.raises(ValueError, match="expected the lines"):
        versus.updated("no table", record)


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A copy of what the script writes to."""
    shutil.copytree(new_check.ROOT / "checks", tmp_path / "checks")
    (tmp_path / "tests").mkdir()
    return tmp_path


def test_a_new_check_is_whole(house: Path) -> None:
    files = new_check.written(house, "too-many-calls", "Z99", "A stage is called too often.")
    names = [file.relative_to(house).as_posix() for file in files]
    assert names == [
        "checks/too_many_calls.py",
        "tests/test_too_many_calls.py",
        "checks/__init__.py",
    ]
    tree = ast.parse(files[2].read_text())
    [tuple_] = [node for node in tree.body if isinstance(node, ast.AnnAssign)]
    assert isinstance(tuple_.value, ast.Tuple)
    listed = [name.id for name in tuple_.value.elts if isinstance(name, ast.Name)]
    before = [check.__name__.rpartition(".")[2] for check in CHECKS]
    assert listed == [*before, "too_many_calls"]
    # The check is of its kind, and its test passes: run in place of a file of the house.
    scope: dict[str, object] = {}
    exec(compile(files[0].read_text(), "check", "exec"), scope)  # our own text
    assert (scope["CODE"], scope["NAME"], scope["NEEDS"]) == ("Z99", "too-many-calls", ())
    headings = [line for line in str(scope["__doc__"]).splitlines() if line.endswith(":")]
    own = [line for line in str(CHECKS[0].__doc__).splitlines() if line.endswith(":")]
    assert headings == own


def test_a_new_check_passes_lint(house: Path) -> None:
    ruff = shutil.which("ruff", path=str(Path(sys.executable).parent))
    if ruff is None:
        pytest.skip("ruff is not installed; `make lint` installs it")
    for file in new_check.written(house, "too-many-calls", "Z99", "A stage is called too often."):
        name = str(new_check.ROOT / file.relative_to(house))
        for command in (["check"], ["format", "--diff"]):
            done = subprocess.run(
                [ruff, *command, "--no-cache", "--stdin-filename", name, "-"],
                cwd=new_check.ROOT,
                input=file.read_text(),
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("name", "code", "title", "word"),
    [
        ("Too Many", "Z99", "A.", "NAME"),
        ("too-many", "z99", "A.", "CODE"),
        ("too-many", CHECKS[0].CODE, "A fault.", "is that of"),
        ("too-many", "Z99", 'A "quoted" title.', "TITLE"),
        ("too-many", "Z99", "no sentence", "TITLE"),
        ("too-many", "Z99", "A" * 80 + ".", "TITLE"),
        ("unbounded-output", "Z99", "A fault.", "is there already"),
    ],
)
def test_what_will_not_do(house: Path, name: str, code: str, title: str, word: str) -> None:
    before = {file: file.read_bytes() for file in house.rglob("*") if file.is_file()}
    with pytest.raises(ValueError, match=word):
        new_check.written(house, name, code, title)
    assert {file: file.read_bytes() for file in house.rglob("*") if file.is_file()} == before
