"""`[tool.icediag]`: what may stand there, what wins, and one line for what may not."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from icediag.cli import main as command_line
from icediag.cli.check import check
from icediag.cli.configuration import configured, options_of
from icediag.errors import IcediagError


def written(folder: Path, table: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pyproject.toml").write_text(f"[tool.icediag]\n{table}\n")
    return folder


def test_every_option_can_stand_there(tmp_path: Path) -> None:
    known = options_of(check)
    assert {"pipeline", "select", "fail-on", "batch-size", "baseline", "out", "quick"} <= set(known)
    table = """
    pipeline = "pkg.diag:pipeline"
    select = ["N", "B01"]
    ignore = "B05"
    fail-on = "never"
    batch-size = 32
    timeout = 20
    quick = true
    format = ["sarif", "github"]
    baseline = "known.json"
    """
    assert configured(check, written(tmp_path, table)).values == {
        "pipeline": "pkg.diag:pipeline",
        "select": "N,B01",
        "ignore": "B05",
        "fail_on": "never",
        "batch_size": 32,
        "timeout": 20,
        "quick": True,
        "formats": "sarif,github",
        "baseline": "known.json",
    }


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("selct = 'N'", ["'selct'", "did you mean 'select'"]),
        ("batch_size = 3", ["'batch_size'", "did you mean 'batch-size'"]),
        ("zzz = 3", ["'zzz'", "select"]),
        ("write-baseline = true", ["'write-baseline'"]),
        ("batch-size = '3'", ["batch-size", "whole number", "'3'"]),
        ("batch-size = 0", ["batch-size", "at least 1"]),
        ("batch-size = 2.5", ["batch-size", "2.5"]),
        ("batch-size = true", ["batch-size", "True"]),
        ("quick = 'yes'", ["quick", "true or false"]),
        ("fail-on = 'errors'", ["fail-on", "'error'", "'never'"]),
        ("fail-on = ['error']", ["fail-on"]),
        ("select = [1]", ["select", "list of texts"]),
        ("out = 3", ["out", "a text"]),
        ("device = ['cpu']", ["device", "a text"]),
        ("timeout = nan", ["timeout", "nan"]),
        ("baseline = 1979-05-27", ["baseline"]),
        ("select = ", ["TOML"]),
        ("select = 'N'\nselect = 'B'", ["TOML"]),
    ],
)
def test_one_line_names_file_and_key(
    table: str,
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(written(tmp_path, table))
    monkeypatch.setattr(sys, "argv", ["icediag", "check"])
    assert command_line.main() == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and err.startswith("icediag: pyproject.toml: ")
    assert all(word in err for word in words)


@pytest.mark.parametrize("text", ["tool = 3", "[tool]\nicediag = 3", "[[tool.icediag]]\na = 1"])
def test_what_is_no_table(tmp_path: Path, text: str) -> None:
    (tmp_path / "pyproject.toml").write_text(text)
    if text == "tool = 3":
        assert configured(check, tmp_path).values == {}
        return
    with pytest.raises(IcediagError, match=r"pyproject.toml: expected a table"):
        configured(check, tmp_path)


def test_the_nearest_table_counts_and_paths_start_from_it(tmp_path: Path) -> None:
    written(tmp_path, "out = 'reports'\nselect = 'N'")
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    (tmp_path / "a" / "pyproject.toml").write_text("[project]\nname = 'other'\n")
    found = configured(check, deep)
    assert found.file == tmp_path / "pyproject.toml"
    assert found.values == {"out": str(tmp_path / "reports"), "select": "N"}
    assert configured(check, written(tmp_path / "a" / "c", "select = 'B'")).values["select"] == "B"
    assert configured(check, written(tmp_path / "d", "")).values == {}


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["icediag", *arguments])
        code = command_line.main()
        out, err = capsys.readouterr()
        return code, out, err

    return call


def test_what_is_typed_wins(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = "pipeline = 'no_such:thing'\nselect = 'N01'\nevents = 8\nfail-on = 'never'\n"
    monkeypatch.chdir(written(tmp_path, table))
    code, _, err = run("check")
    assert code == 2 and "no_such" in err
    # A fault of the built-in pipeline: the one that the file names is not meant.
    fault = ("check", "--fault", "normalized-relative", "--batch-size", "8", "--quick")
    code, out, err = run(*fault)
    assert code == 0 and "N01" in out, err
    assert run(*fault, "--fail-on", "error")[0] == 1
    code, out, _ = run(*fault, "--select", "N02")
    assert code == 0 and "N01" not in out


def test_what_the_readme_shows(tmp_path: Path) -> None:
    readme = Path(__file__).parent.parent / "README.md"
    shown = readme.read_text(encoding="utf-8").split("```toml\n[tool.icediag]\n")[1].split("```")[0]
    found = configured(check, written(tmp_path, shown))
    assert set(found.values) == {
        *("pipeline", "batch_size", "quick", "ignore", "fail_on", "baseline"),
    }


def test_other_commands_do_not_mind_it(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(written(tmp_path, "no-such = 1"))
    assert run("checks")[0] == 0
    assert run("check", "--help")[0] == 0
    assert run("check")[0] == 2
