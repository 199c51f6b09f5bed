"""The table of shapes: nothing lost, nothing wider than the terminal, names taken literally."""

import dataclasses
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from torch import nn

from icediag.checks import judge
from icediag.finding import Diagnosis, Finding
from icediag.icecube import pipeline as icecube
from icediag.instruments.recorder.record import record
from icediag.model.network import NetworkConfig
from icediag.recording import Facts, Recording, StageRecord, TensorRecord, Unjudged
from icediag.reports.numbers import counted, number, share
from icediag.reports.shapes import render_shapes
from tests.pipelines import deepsets, language, odd


@pytest.fixture(scope="module")
def recordings() -> dict[str, Recording]:
    config = NetworkConfig(d_model=8, n_heads=1, n_layers=2)
    found = {
        "icecube": record(icecube(n_events=8, batch_size=8, config=config)),
        "deepsets": record(deepsets.pipeline()),
        "language": record(language.pipeline()),
        "failed": record(odd.on_numbers(odd.RaisesMidway())),
        "bad": record(odd.on_numbers(nn.Identity(), lambda p, _: (p / 0).mean())),
        "empty": Recording(pipeline="empty", batch_size=1),
    }
    # The JSON shows what was recorded, too.
    return {name: Recording.from_json(r.to_json()) for name, r in found.items()}


def squeezed(text: str) -> str:
    """Without the blanks and line ends that wrapping and columns bring in."""
    return re.sub(r"\s+", "", text)


@pytest.mark.parametrize("width", [1, 80, 120, 140])
@pytest.mark.parametrize("color", [False, True])
def test_no_line_is_wider_than_the_terminal(
    recordings: dict[str, Recording], width: int, color: bool
) -> None:
    for recording in recordings.values():
        text = render_shapes(recording, judge(recording), width=width, color=color, depth=9)
        assert ("\x1b[" in text) == color
        plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
        assert max(cell_len(line) for line in plain.splitlines()) <= max(width, 40)
        assert text.endswith("\n") and not text.endswith("\n\n\n")


@pytest.mark.parametrize("width", [80, 120, 140])
@pytest.mark.parametrize("name", ["icecube", "deepsets", "language", "bad"])
def test_nothing_is_lost(recordings: dict[str, Recording], name: str, width: int) -> None:
    recording = recordings[name]
    text = render_shapes(recording, judge(recording), width=width, depth=9)
    # Stages come in their order; a title or name may be wrapped, so blanks do not count.
    whole = squeezed(text)
    at = 0
    for stage in recording.stages:
        title = squeezed(f"{stage.name} {stage.type}")
        assert title in whole[at:], stage.name
        at = whole.index(title, at) + len(title)
        if stage.location:
            place = f"{stage.location.file}:{stage.location.line}"
            assert place in whole[at : at + 120]
        for tensor in stage.tensors:
            for word in told_of(tensor):
                assert squeezed(word) in whole, (stage.name, tensor.path, word)
    for axis, size in recording.axes.items():
        assert squeezed(f"{axis} {size:,}") in whole
    for part in recording.parameters:
        assert squeezed(part.stage) in whole
        assert number(part.gradient_norm) in whole
    for ragged in recording.ragged:
        assert squeezed(ragged.title) in whole


def told_of(tensor: TensorRecord) -> list[str]:
    words = [tensor.path or ("gradient" if tensor.role == "grad" else "output"), tensor.dtype]
    axes = tensor.axes or (None,) * len(tensor.shape)
    words += [name or f"{size:,}" for name, size in zip(axes, tensor.shape, strict=True)]
    words += [f"{size:,}" for size in tensor.shape]
    for facts in tensor.columns or ([tensor.facts] if tensor.facts else []):
        words += [number(v) for v in (facts.minimum, facts.median, facts.maximum)]
        words += [number(facts.mean), number(facts.std), share(facts.zeros, facts.count)]
        if facts.nans:
            words.append(f"{facts.nans:,} NaN")
        infinite = facts.positive_infs + facts.negative_infs
        if facts.additive_mask:
            words.append(f"mask, {share(facts.negative_infs, facts.count)} -inf")
        elif infinite:
            words.append(f"{infinite:,} inf")
    words += [name for name in tensor.column_names if name]
    return words


def test_a_line_by_hand() -> None:
    facts = Facts(
        count=4000,
        minimum=-1.5,
        maximum=2500,
        median=0.25,
        median_of=100,
        mean=0.125,
        std=3.0,
        zeros=1,
        nans=2,
        negative_infs=3,
    )
    tensor = TensorRecord(
        path="times",
        role="in",
        shape=(1000, 4),
        axes=("pulses", None),
        varies=(True, False),
        dtype="float32",
        device="cuda:0",
        facts=facts,
    )
    stage = StageRecord(name="net.a", kind="module", type="Net", calls=2, tensors=(tensor,))
    recording = Recording(pipeline="p", batch_size=1, axes={"pulses": 1000}, stages=(stage,))
    narrow = render_shapes(recording, Diagnosis(pipeline="p"), width=80)
    assert "net.a Net · 2 calls, values of the first 1\n" in narrow
    assert "  → times  pulses × 4  1,000… × 4  float32 cuda:0\n" in narrow
    assert "-1.5 | ~0.25 | 2,500  mean 0.125  sd 3  zeros <0.1 %  2 NaN 3 inf\n" in narrow
    wide = render_shapes(recording, Diagnosis(pipeline="p"), width=140)
    [line] = [line for line in wide.splitlines() if "→ times" in line]
    assert re.split(r"\s{2,}", line.strip()) == [
        *("→ times", "pulses × 4", "1,000… × 4", "float32 cuda:0"),
        *("-1.5", "~0.25", "2,500", "0.125", "3", "<0.1 %", "2 NaN 3 inf"),
    ]
    [title] = [line for line in wide.splitlines() if "net.a" in line]
    assert title == "net.a Net · 2 calls, values of the first 1"


def test_a_title_spans_the_table() -> None:
    name = "a." * 45 + "z"
    stage = StageRecord(name=name, kind="module", tensors=(scalar("x"),))
    recording = Recording(pipeline="p", batch_size=1, stages=(stage,))
    text = render_shapes(recording, Diagnosis(pipeline="p"), width=140)
    assert f"\n{name}\n" in text


def scalar(path: str) -> TensorRecord:
    facts = Facts(count=1, minimum=7, maximum=7, median=7, median_of=1, mean=7.0, std=0.0)
    return TensorRecord(path=path, role="out", shape=(), dtype="int64", facts=facts)


NAMES = ["[red]x[/red]", "[/]", ":smile:", "\x1b[31mred", "a\nb", "\x07", "日本語", "{}%s", ""]


@pytest.mark.parametrize("width", [80, 140])
@pytest.mark.parametrize("name", NAMES)
def test_names_are_printed_literally(name: str, width: int) -> None:
    tensor = dataclasses.replace(scalar(name), shape=(3,), axes=(name,))
    stage = StageRecord(name=name, kind="function", type=name, tensors=(tensor,))
    recording = Recording(
        pipeline=name,
        batch_size=1,
        axes={name: 3},
        axis_notes={name: name},
        stages=(stage,),
        not_judged=(Unjudged(name=name, reason=name),),
    )
    finding = Finding(
        code="X",
        name=name,
        severity="error",
        stage=name,
        message=name,
        evidence={name: 1},
        remedy=name,
    )
    diagnosis = Diagnosis(pipeline=name, findings=(finding,))
    text = render_shapes(recording, diagnosis, width=width)
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)
    assert squeezed(text).count(squeezed(shown)) >= 10 or not name
    assert "\x1b" not in text and "\x07" not in text
    assert all(cell_len(line) <= width for line in text.splitlines())


def test_depth_hides_and_says_so(recordings: dict[str, Recording]) -> None:
    recording = recordings["icecube"]
    diagnosis = judge(recording)
    text = render_shapes(recording, diagnosis, depth=0)
    hidden = sum(stage.depth > 0 for stage in recording.stages)
    assert hidden > 5
    assert f"{hidden} stages nested deeper not shown (--depth)" in text
    assert "normalizer Normalizer" not in text
    assert "not shown" not in render_shapes(recording, diagnosis, depth=99)


def test_failures_and_findings_are_shown(recordings: dict[str, Recording]) -> None:
    failed = render_shapes(recordings["failed"], judge(recordings["failed"]))
    assert "could not see model: ValueError at tests/pipelines/odd.py" in failed
    bad = render_shapes(recordings["bad"], judge(recordings["bad"]))
    flat = " ".join(bad.split())
    assert "error V01 non-finite-value at loss (tests/test_shapes_report.py:" in flat
    assert "All that goes in is finite" in flat
    empty = render_shapes(recordings["empty"], judge(recordings["empty"]))
    assert "could not see non-finite-value: values were not recorded" in empty


def test_the_same_recording_gives_the_same_text(recordings: dict[str, Recording]) -> None:
    recording = recordings["language"]
    assert render_shapes(recording, judge(recording)) == render_shapes(recording, judge(recording))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0, "0"),
        (1234567, "1,234,567"),
        (-5, "-5"),
        (2**62 + 1, "4,611,686,018,427,387,905"),
        (0.0, "0"),
        (-0.0, "0"),
        (1.0, "1"),
        (0.25, "0.25"),
        (-1.23456, "-1.235"),
        (12.3456, "12.35"),
        (100.0, "100"),
        (999.94, "999.9"),
        (999.96, "1,000"),
        (1234.5, "1,234"),
        (999_999.0, "999,999"),
        (1e6, "1.00e6"),
        (-2.5e-7, "-2.50e-7"),
        (1e-3, "0.001"),
        (1e300, "1.00e300"),
        (1e-300, "1.00e-300"),
        (math.nan, "nan"),
        (math.inf, "inf"),
        (-math.inf, "-inf"),
    ],
)
def test_number(value: float | None, text: str) -> None:
    assert number(value) == text


@given(st.floats(-1e307, 1e307))
def test_a_number_is_short_and_close(value: float) -> None:
    text = number(value)
    assert len(text) <= 10
    back = float(text.replace(",", ""))
    assert back == pytest.approx(value, rel=0.006, abs=1e-308)


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [
        (0, 0, "-"),
        (0, 9, "0 %"),
        (9, 9, "100 %"),
        (1, 3, "33.3 %"),
        (1, 10_000, "<0.1 %"),
        (9_999, 10_000, ">99.9 %"),
        (1, 1000, "0.1 %"),
    ],
)
def test_share(part: int, whole: int, text: str) -> None:
    assert share(part, whole) == text


def test_counted() -> None:
    assert counted(1, "call") == "1 call"
    assert counted(0, "call") == "0 calls"
    assert counted(1200, "call") == "1,200 calls"


def test_an_empty_tensor_and_one_without_values() -> None:
    empty = TensorRecord(path="e", role="out", shape=(0,), dtype="int64", facts=Facts(count=0))
    unseen = TensorRecord(path="u", role="out", shape=(2,), unseen="layout torch.sparse_coo")
    stage = StageRecord(name="s", kind="module", tensors=(empty, unseen, scalar("x")))
    recording = Recording(pipeline="p", batch_size=1, stages=(stage,))
    for width in (80, 140):
        text = render_shapes(recording, Diagnosis(pipeline="p"), width=width)
        assert "empty" in text and "layout torch.sparse_coo" in text
