"""A recording survives being written, read, and read by another version; damage is one line."""

import dataclasses
import json
import math
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from icediag.errors import IcediagError
from icediag.plain import write_atomically
from icediag.recording import (
    VERSION,
    Facts,
    Location,
    PaddingRecord,
    ParameterRecord,
    RaggedRecord,
    Recording,
    StageRecord,
    TensorRecord,
    Unjudged,
)
from icediag.records.births import Birth, BirthInput, BirthsRecord
from icediag.records.bounds import (
    BoundingOp,
    BoundsNote,
    BoundsRecord,
    InputRange,
    OutputBounds,
    Place,
    Pole,
    StageBounds,
    Witness,
)
from icediag.records.comparison import ComparisonRecord
from icediag.records.contracts import Breach, Contract, ContractsRecord
from icediag.records.data import DataRecord
from icediag.records.effects import EffectsRecord
from icediag.records.features import FeaturesRecord
from icediag.records.gradients import GradientsRecord
from icediag.records.histograms import HistogramsRecord
from icediag.records.invariances import InvariancesRecord
from icediag.records.loss import LossRecord
from icediag.records.overfit import OverfitRecord
from icediag.records.provenance import Origin, OriginRecord, ProvenanceRecord, RawContract
from icediag.records.source import SourceRecord
from icediag.records.squashing import SquashingRecord
from icediag.records.training import TrainingRecord
from icediag.records.weighing import WeighingRecord
from icediag.records.work import (
    Growth,
    LineRecord,
    LinesRecord,
    LoopRecord,
    OperationRecord,
    OperationsRecord,
    PythonRecord,
    Repeated,
    Span,
    WorkRun,
)
from tests.clock_sample import sample_clock, sample_projection
from tests.filled import filled


def sample() -> Recording:
    facts = Facts(
        count=9,
        minimum=-(2**62) - 1,
        maximum=1e300,
        median=0.1,
        median_of=9,
        mean=0.25,
        std=math.inf,
        zeros=1,
        nans=2,
        positive_infs=1,
        negative_infs=3,
    )
    tensor = TensorRecord(
        path="x.0",
        role="out",
        shape=(3, 3),
        axes=("rows", None),
        varies=(True, False),
        dtype="float32",
        device="cpu",
        facts=facts,
        columns=(facts, Facts(count=0)),
        column_names=("time", None),
    )
    return Recording(
        pipeline="naïve [red]",
        followed=7,
        batch_size=3,
        loss=math.nan,
        baseline_loss=-math.inf,
        axes={"rows": 3},
        axis_notes={"rows": "rows of x"},
        stages=(
            StageRecord(
                name="collate",
                kind="collate",
                depth=1,
                calls=2,
                valued_calls=2,
                type="Net",
                location=Location(file="a/b.py", line=7),
                tensors=(tensor, TensorRecord(path="", role="grad", shape=(), unseen="meta")),
            ),
        ),
        ragged=(
            RaggedRecord(
                inner="rows",
                outer="batch",
                groups=3,
                quantiles={"0": 0.0, "1": 7.0},
                mean=1.5,
                mean_square=17.0,
                cut=2.5,
                cut_square=18.0,
                parts=2,
            ),
        ),
        padding=(
            PaddingRecord(
                stage="collate", path="m", slots=9, used=3, padding_is=True, holds="rows"
            ),
        ),
        parameters=(
            ParameterRecord(
                stage="a",
                parameters=4,
                without_gradient=2,
                frozen=1,
                weight_norm=1.5,
                gradient_norm=math.nan,
            ),
        ),
        not_judged=(
            Unjudged(name="x", reason="y", raised=True, location=Location(file="a.py", line=3)),
        ),
        overfit=filled(OverfitRecord),
        gradients=filled(GradientsRecord),
        effects=filled(EffectsRecord),
        invariances=filled(InvariancesRecord),
        features=filled(FeaturesRecord),
        loss_probe=filled(LossRecord),
        data=filled(DataRecord),
        training_flow=filled(TrainingRecord),
        histograms=filled(HistogramsRecord),
        source=filled(SourceRecord),
        squashing=filled(SquashingRecord),
        weighing=filled(WeighingRecord),
        comparison=filled(ComparisonRecord),
        versions={"torch": "2"},
        bounds=sample_bounds(),
        provenance=sample_provenance(),
        operations=sample_operations(),
        clock=sample_clock(),
        projection=sample_projection(),
        contracts=sample_contracts(),
        births=sample_births(),
        lines=sample_lines(),
    )


def sample_bounds() -> BoundsRecord:
    place = Place(op="aten::tanh", stage="head", file="a/b.py", line=7, count=2)
    witness = Witness(
        how="weights", value=7.5, row=1, inputs={"x": (0.0, 1.0)}, module="head", factor=3.0
    )
    output = OutputBounds(
        column="azimuth",
        domain_low=0.0,
        domain_high=6.0,
        periodic=True,
        low=-math.inf,
        high=math.inf,
        proved=False,
        why_not="no rule",
        last=BoundingOp(kind="squash", place=place),
        stage="head",
        file="a/b.py",
        line=7,
        witness=witness,
        searched="rows",
        attained_low=0.5,
        attained_high=1.5,
        reach_low=0.25,
        reach_high=2.5,
        saturated=0.5,
        saturated_wrong=0.25,
        targets=True,
        targets_out_of_reach=0.125,
        targets_near_seam=0.0625,
    )
    pole = Pole(
        place=place,
        what="log at 0",
        argument=0.0,
        value=-math.inf,
        slope=math.inf,
        dtype="float32",
        confirmed=True,
        outcome="loss",
        met="batch",
        entries=3,
    )
    return BoundsRecord(
        batch_size=3,
        outputs=(output,),
        stages=(StageBounds(stage="head", path="", low=0.0, high=1.0, proved=False),),
        poles=(pole,),
        ranges=(InputRange(path="x", low=0.0, high=1.0, source="declared"),),
        unproved=(place,),
        not_judged=(BoundsNote(name="x", reason="y"),),
    )


def sample_operations() -> OperationsRecord:
    place = Location(file="a/b.py", line=7)
    growth = Growth(
        axis="doms*pulses", order=2, slope=0.5, intercept=-1.0, exact=False, also=("events",)
    )
    operation = OperationRecord(
        phase="backward",
        stage="head",
        op="mm",
        node="AddmmBackward0",
        dtype="float32",
        location=place,
        calls=(1, 2),
        launches=(1, 2),
        elements=(3, 4),
        bytes_read=(5, 6),
        bytes_written=(7, 8),
        flops=(9, 10),
        syncs=(0, 1),
        growth=growth,
        work=growth,
    )
    repeated = Repeated(
        phase="forward", op="exp", location=place, first=place, times=2, bytes=40, flops=0
    )
    return OperationsRecord(
        batch_size=9,
        axes={"doms": 90},
        longest=("longest",),
        runs=(WorkRun(samples=2, axes={"doms": 20}), WorkRun(samples=4, axes={"doms": 40})),
        operations=(operation,),
        repeated=(repeated,),
        not_judged=(Unjudged(name="optimizer", reason="wants a closure"),),
    )


def sample_births() -> BirthsRecord:
    given = BirthInput(name="self", shape=(3,), dtype="float32", minimum=0.0, maximum=2.0, at=0.0)
    birth = Birth(
        phase="backward",
        stage="head",
        op="div",
        node="LogBackward0",
        location=Location(file="a/b.py", line=3),
        nans=1,
        positive_infs=2,
        negative_infs=3,
        values=9,
        index=(0, 1),
        constant=True,
        from_infinite=True,
        inputs=(given,),
        times=2,
    )
    return BirthsRecord(births=(birth,))


def sample_contracts() -> ContractsRecord:
    breach = Breach(kind="shape", expected="n = 3", got="4", beside="y", call=2, count=3, total=12)
    contract = Contract(
        stage="head",
        owner="a.b:Head",
        role="in",
        path="x",
        holder="a.b:Batch",
        declared="Float 'n 3'",
        axes=("n", None),
        sizes=(4, 3),
        small_sizes=(2, 3),
        unit="ns",
        column="time",
        number=7,
        breaches=(breach,),
        location=Location(file="a/b.py", line=3),
    )
    return ContractsRecord(
        contracts=(contract,), batch_axes=((8, 2),), unread={"y of a.b:Head": "m has no size yet"}
    )


def sample_lines() -> LinesRecord:
    place = Location(file="a/b.py", line=7)
    growth = Growth(axis="doms", order=1, slope=1.0, intercept=2.0, exact=False, also=("events",))
    line = LineRecord(phase="loss", location=place, counts=(22, 42), growth=growth)
    loop = LoopRecord(
        phase="forward",
        stage="pack",
        kind="for",
        function="pack",
        location=place,
        counts=(20, 40),
        entries=(1, 2),
        growth=growth,
        lines=(60, 120),
        spans=(Span(file="a/b.py", first=7, last=9),),
        inside=place,
        text="for row in rows:",
    )
    return LinesRecord(
        batch_size=9,
        axes={"doms": 90},
        longest=("longest",),
        runs=(WorkRun(samples=2, axes={"doms": 20}), WorkRun(samples=4, axes={"doms": 40})),
        lines=(line,),
        loops=(loop,),
        executed={"forward": (70, 130)},
        python=(PythonRecord(phase="loss", stage="s", grows=True, lines=3.5),),
        workers=2,
        not_judged=(Unjudged(name="growth", reason="one size"),),
    )


def sample_provenance() -> ProvenanceRecord:
    origin = Origin(
        column="charge",
        map="logarithm",
        slope=0.5,
        offset=2.0,
        floor=1e-8,
        clamp=0.01,
        low=-1.0,
        high=3.0,
        group="dom",
        rows="order",
        residual=1e-9,
        tolerance=1e-6,
        compared=9,
    )
    seen = OriginRecord(
        stage="pool",
        owner="a.b:Pool",
        role="in",
        path="weights",
        column=1,
        origin=origin,
        negative=0.5,
        spread=0.25,
        groups="owner",
        smallest_sum=0.01,
        cancelled=0.001,
        file="a/b.py",
        line=7,
    )
    contract = RawContract(
        owner="a.b:Pool", argument="weights", column="charge", unit="p.e.", pools=True, reached=True
    )
    return ProvenanceRecord(origins=(seen,), contracts=(contract,))


def text_of(recording: Recording) -> str:
    """NaN is not equal to itself; its text is."""
    return repr(recording)


def test_round_trip() -> None:
    text = sample().to_json()
    back = Recording.from_json(text)
    assert text_of(back) == text_of(sample())
    assert back.to_json() == text
    # What any other reader of JSON can read.
    strict = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert strict["loss"] == "nan" and strict["baseline_loss"] == "-inf"
    assert strict["stages"][0]["tensors"][0]["facts"]["minimum"] == -(2**62) - 1


numbers = st.one_of(st.integers(-(2**70), 2**70), st.floats())


@given(
    minimum=st.none() | numbers,
    mean=st.none() | st.floats(),
    name=st.text(max_size=20),
    axes=st.dictionaries(st.text(max_size=5), st.integers(0, 2**60), max_size=3),
)
def test_round_trip_of_anything(
    minimum: Any, mean: float | None, name: str, axes: dict[str, int]
) -> None:
    facts = Facts(count=1, minimum=minimum, mean=mean)
    stage = StageRecord(
        name=name, kind="loss", tensors=(TensorRecord(path=name, role="in", shape=(), facts=facts),)
    )
    recording = Recording(pipeline=name, batch_size=1, axes=axes, stages=(stage,))
    assert text_of(Recording.from_json(recording.to_json())) == text_of(recording)


def test_every_field_is_exercised() -> None:
    """The sample sets each field to something else than its default, so none is lost unseen."""

    def visit(thing: Any) -> None:
        if dataclasses.is_dataclass(thing) and not isinstance(thing, type):
            for field in dataclasses.fields(thing):
                value = getattr(thing, field.name)
                if field.default is not dataclasses.MISSING and value == field.default:
                    plain.add((type(thing).__name__, field.name))
                else:
                    told.add((type(thing).__name__, field.name))
                visit(value)
        elif isinstance(thing, tuple):
            for item in thing:
                visit(item)

    told: set[tuple[str, str]] = set()
    plain: set[tuple[str, str]] = set()
    visit(sample())
    assert plain - told == {("Recording", "version")}


def test_unknown_fields_of_later_versions_are_passed_over() -> None:
    data = json.loads(sample().to_json())
    data["new"] = {"anything": [1]}
    data["stages"][0]["colour"] = "red"
    data["stages"][0]["tensors"][0]["facts"]["mode"] = None
    assert text_of(Recording.from_json(json.dumps(data))) == text_of(sample())


def test_fields_with_a_default_may_be_absent() -> None:
    back = Recording.from_json('{"version": 1, "pipeline": "p", "batch_size": 2}')
    assert back == Recording(pipeline="p", batch_size=2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected JSON"),
        ("not json", "expected JSON"),
        ("[" * 100_000, "expected JSON"),
        ("[]", "expected a recording with a version, got none"),
        ("{}", "with a version"),
        ('{"version": "1"}', "with a version"),
        (f'{{"version": {VERSION + 1}}}', "a newer icediag wrote it"),
        ('{"version": 1}', "not a readable recording"),
        ('{"version": 1, "pipeline": 3, "batch_size": 2}', "expected str, got 3"),
        ('{"version": 1, "pipeline": "p", "batch_size": true}', "expected int, got True"),
        ('{"version": 1, "pipeline": "p", "batch_size": 1, "axes": []}', "expected an object"),
        ('{"version": 1, "pipeline": "p", "batch_size": 1, "stages": {}}', "expected a list"),
        (f'{{"version": 1, "pipeline": "p", "batch_size": 1, "loss": {10**400}}}', "too large"),
    ],
)
def test_what_is_no_recording(text: str, message: str) -> None:
    with pytest.raises(IcediagError, match=message) as caught:
        Recording.from_json(text, "file.json")
    assert str(caught.value).startswith("file.json: ")
    assert "\n" not in str(caught.value)


JSON = json.loads(sample().to_json())
ODD: st.SearchStrategy[Any] = st.sampled_from(
    [None, True, -1, 0.5, "x", "nan", [], {}, [[]], {"": {}}, [None], 10**400]
)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_a_damaged_value_is_read_or_refused_in_one_line(data: st.DataObject) -> None:
    tree = json.loads(json.dumps(JSON))
    place = tree
    while True:
        inner = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(inner))
        value = place[key]
        if isinstance(value, dict | list) and value and data.draw(st.booleans()):
            place = value
            continue
        if data.draw(st.booleans()):
            del place[key]
        else:
            place[key] = data.draw(ODD)
        break
    read_or_refused(json.dumps(tree))


@given(st.integers(0, 10**6), st.text(max_size=3), st.integers(0, 5))
def test_damaged_text_is_read_or_refused_in_one_line(at: int, new: str, cut: int) -> None:
    text = sample().to_json()
    at %= len(text)
    read_or_refused(text[:at] + new + text[at + cut :])


def read_or_refused(text: str) -> None:
    refusal = "f: one line"
    try:
        back = Recording.from_json(text, "f")
    except IcediagError as error:
        refusal = str(error)
    else:
        # What was read is whole: it can be written again.
        assert text_of(Recording.from_json(back.to_json())) == text_of(back)
    assert refusal.startswith("f: ") and "\n" not in refusal


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "recording.json"
    sample().save(path)
    assert text_of(Recording.load(path)) == text_of(sample())
    assert [p.name for p in tmp_path.iterdir()] == ["recording.json"]
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask


def test_writing_is_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "recording.json"
    path.write_text("before")

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        with pytest.raises(IcediagError, match="cannot be written: No space left on device"):
            sample().save(path)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            sample().save(path)
    assert path.read_text() == "before"
    assert [p.name for p in tmp_path.iterdir()] == ["recording.json"]


def test_paths_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(IcediagError, match="cannot be written: No such file or directory"):
        write_atomically(tmp_path / "missing" / "r.json", "{}")
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(IcediagError, match="cannot be written: Is a directory"):
        write_atomically(folder, "{}")
    with pytest.raises(IcediagError, match="cannot be read: No such file"):
        Recording.load(tmp_path / "missing.json")
    with pytest.raises(IcediagError, match="cannot be read: Is a directory"):
        Recording.load(tmp_path)
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(IcediagError, match="not UTF-8"):
        Recording.load(tmp_path / "bytes")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bytes", "folder"]


#: As the first version wrote it: no contracts, no births, no clock.
FIRST = """{"pipeline": "old", "batch_size": 3, "loss": "nan", "baseline_loss": 1.5,
 "axes": {"pulses": 56}, "axis_notes": {},
 "stages": [{"name": "head", "kind": "module", "depth": 1, "calls": 2, "valued_calls": 2,
   "type": "Linear", "location": {"file": "a/b.py", "line": 7}, "tensors": [
    {"path": "input", "role": "in", "shape": [56, 3], "axes": ["pulses", null],
     "varies": [false, false], "dtype": "float32", "device": "cpu",
     "facts": {"count": 168, "minimum": -1, "maximum": 2.5, "median": 0.5, "median_of": 168,
       "mean": 0.25, "std": "inf", "zeros": 1, "nans": 2, "positive_infs": 0,
       "negative_infs": 0},
     "unseen": null, "columns": [], "column_names": []}]}],
 "ragged": [], "padding": [], "parameters": [], "not_judged": [],
 "versions": {"torch": "2.6.0", "python": "3.11.9"}, "version": 1}
"""


def test_a_file_of_the_first_version_is_read() -> None:
    recording = Recording.from_json(FIRST)
    [stage] = recording.stages
    [tensor] = stage.tensors
    assert (stage.name, tensor.axes, tensor.shape) == ("head", ("pulses", None), (56, 3))
    assert tensor.facts is not None
    assert (tensor.facts.minimum, tensor.facts.std, tensor.facts.nans) == (-1, math.inf, 2)
    assert recording.contracts is None
    assert recording.births is None
    assert Recording.from_json(recording.to_json()).stages == recording.stages
