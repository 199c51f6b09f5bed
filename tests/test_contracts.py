"""Contracts: read from signatures, compared call by call, and judged."""

import math
from dataclasses import dataclass, replace
from typing import Annotated, Any, NamedTuple, NewType, TypedDict

import jaxtyping
import pytest
import torch
from annotated_types import Ge, Gt, Interval, IsFinite, Le, Len, Lt, MultipleOf, Unit
from hypothesis import assume, given
from hypothesis import strategies as st
from jaxtyping import Bool, Float, Float32, Int, Int64, Shaped
from torch import Tensor, nn

from icediag import Pipeline
from icediag.checks import confused_axes, contract_broken, judge, wrong_unit
from icediag.finding import Finding
from icediag.icecube import pipeline as icecube
from icediag.instruments.contracts.declared import declared_in
from icediag.instruments.contracts.dims import Sizes, UnreadableError, evaluate, fit, parse_dims
from icediag.instruments.contracts.signatures import arguments_of, fields_of, hints_of
from icediag.instruments.contracts.terms import terms_of
from icediag.instruments.examine import examine
from icediag.instruments.recorder.record import record
from icediag.model.network import NetworkConfig
from icediag.pipeline import Raw
from icediag.recording import Recording
from icediag.records.contracts import Contract, ContractsRecord
from tests.pipelines import contracts as towers
from tests.pipelines import deepsets, graphs, images, language, odd, sequences

SMALL = NetworkConfig(d_model=8, n_heads=1, n_layers=1)

# --- axes, against jaxtyping itself -----------------------------------------------------------

words = st.sampled_from(["a", "b", "c", "3", "_", "#a", "#b", "a+1", "2*b", "a=2", "#1"])
many = st.sampled_from(["...", "*r", "*#r", "_"])


@st.composite
def shapes_and_dims(draw: st.DrawFn) -> list[tuple[str, tuple[int, ...]]]:
    calls = []
    for _ in range(draw(st.integers(1, 4))):
        dims = draw(st.lists(words, max_size=3))
        if draw(st.booleans()):
            dims.insert(draw(st.integers(0, len(dims))), draw(many))
        shape = draw(st.lists(st.integers(1, 4), min_size=0, max_size=4).map(tuple))
        calls.append((" ".join(dims), shape))
    return calls


def _by_jaxtyping(calls: list[tuple[str, tuple[int, ...]]]) -> list[bool | None]:
    answers: list[bool | None] = []
    with jaxtyping.jaxtyped("context"):
        for dims, shape in calls:
            try:
                declared: Any = Shaped[Tensor, dims]
                answers.append(isinstance(torch.empty(shape), declared))
            except jaxtyping.AnnotationError:
                answers.append(None)
    return answers


@given(shapes_and_dims())
def test_shapes_fit_where_jaxtyping_says_so(calls: list[tuple[str, tuple[int, ...]]]) -> None:
    sizes = Sizes()
    answers: list[bool | None] = []
    for dims, shape in calls:
        try:
            answers.append(fit(parse_dims(dims), shape, sizes, "x") is None)
        except UnreadableError:
            answers.append(None)
    expected = _by_jaxtyping(calls)
    if None in answers or None in expected:
        # jaxtyping compares axes from the left and stops; what came before agrees.
        first = min(x.index(None) if None in x else len(x) for x in (answers, expected))
        assert answers[:first] == expected[:first]
    else:
        assert answers == expected


def test_a_misfit_says_who_had_the_other_size() -> None:
    sizes = Sizes()
    assert fit(parse_dims("pulses 4"), (7, 4), sizes, "times") is None
    misfit = fit(parse_dims("pulses"), (5,), sizes, "index")
    assert misfit is not None
    assert (misfit.expected, misfit.got, misfit.beside) == ("pulses = 7", "5", "times")
    wide = fit(parse_dims("*rest 3"), (2, 4), sizes, "x")
    assert wide is not None and (wide.expected, wide.got) == ("3", "4")
    rank = fit(parse_dims("a b"), (2,), sizes, "x")
    assert rank is not None and (rank.expected, rank.got) == ("2 axes", "1 axes")


def test_expressions() -> None:
    sizes = Sizes(single={"n": (5, "x")}, numbers={"heads": 4})
    assert evaluate("n+1", sizes) == 6
    assert evaluate("{heads}*n//2", sizes) == 10
    assert evaluate("min(n, 3)", sizes) == 3
    for text in ("m+1", "{none}", "n.bit_length()", "'a'", "n +", "1//0"):
        with pytest.raises(UnreadableError):
            evaluate(text, sizes)


# --- annotations ------------------------------------------------------------------------------

Nanoseconds = NewType("Nanoseconds", Tensor)


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (Float[Tensor, "p 4"], ["Float 'p 4'"]),
        (Annotated[Float[Tensor, "p"], Unit("ns"), Ge(0)], ["Float 'p', >= 0, ns"]),
        (Annotated[Tensor, Interval(gt=0, le=1)] | None, ["> 0, <= 1"]),
        (Annotated[Float[Tensor, "p"] | None, Raw("t", "ns")], ["Float 'p', raw t, ns"]),
        (Float[Tensor, "p"] | Float[Tensor, "p q"], ["Float 'p'", "Float 'p q'"]),
        (Raw("t"), ["raw t"]),
        ((Float[Tensor, "p"], Lt(3)), ["Float 'p', < 3"]),
        (Annotated[Tensor, MultipleOf(0.5), Len(1, 3)], ["a multiple of 0.5, length 1 to 3"]),
        (IsFinite[Tensor], ["no NaN or infinity"]),
        (Annotated[Nanoseconds, Gt(0)], ["> 0"]),
        (Annotated["Tensor", Ge(0)], [">= 0"]),
        (Annotated[Any, Ge("later")], []),
        (Tensor, []),
        (Annotated[int, Ge(1)], []),
        (list[Float[Tensor, "n"]], []),
        ("Float[Tensor", []),
        (None, []),
        (3, []),
        (Annotated[Tensor, {"not": "hashable"}, Ge(0)], [">= 0"]),
    ],
)
def test_what_an_annotation_declares(annotation: Any, text: list[str]) -> None:
    assert [terms.text for terms in terms_of(annotation)] == text


@dataclass
class Inner:
    x: Float[Tensor, "n 2"]


@dataclass
class Outer:
    inner: Inner
    y: "Annotated[Float[Tensor, 'n'], Ge(0)]"
    z: Tensor
    lost: "Missing[Tensor, 'n']"  # type: ignore[name-defined]


class Pair(NamedTuple):
    a: Float[Tensor, "n"]
    b: Int[Tensor, "m"]


class Typed(TypedDict):
    a: Float[Tensor, "n"]
    rows: list[Float[Tensor, "k"]]


def test_which_annotation_stands_for_which_tensor() -> None:
    one, two = torch.ones(1), torch.ones(1, 2)

    def seen(tree: Any, annotation: Any = None) -> dict[str, tuple[str, str | None, str]]:
        found = declared_in(tree, annotation, "q")
        return {
            path: (
                d.annotation
                if isinstance(d.annotation, str)
                else " ".join(terms.text for terms in terms_of(d.annotation)),
                None if d.holder is None else d.holder.__name__,
                d.scope,
            )
            for path, d in found.items()
        }

    outer = Outer(Inner(two), one, one, one)
    assert seen(outer) == {
        "q.inner.x": ("Float 'n 2'", "Inner", "q.inner"),
        "q.y": ("Float 'n', >= 0", "Outer", "q"),
        "q.z": ("", "Outer", "q"),
        "q.lost": ("Missing[Tensor, 'n']", "Outer", "q"),
    }
    assert seen(Pair(one, one))["q.b"] == ("Int 'm'", "Pair", "q")
    typed = seen({"a": one, "rows": [one, one]}, Typed)
    assert typed["q.a"] == ("Float 'n'", "Typed", "q")
    assert typed["q.rows.1"] == ("Float 'k'", "Typed", "q")
    assert seen({"a": one, "b": one}) == {}
    assert seen((one, one), tuple[Float[Tensor, "n"], Int[Tensor, "n"]]) == {
        "q.0": ("Float 'n'", None, ""),
        "q.1": ("Int 'n'", None, ""),
    }
    assert len(seen((one, one), tuple[Float[Tensor, "n"], ...])) == 2
    assert len(seen({"k": one}, dict[str, Float[Tensor, "n"]])) == 1
    assert seen([one], list[Float[Tensor, "n"]] | None)["q.0"][0] == "Float 'n'"


def test_one_annotation_that_cannot_be_evaluated_leaves_the_others() -> None:
    def function(
        x: "Float[Tensor, 'n']",
        y: "Nowhere[1]",  # type: ignore[name-defined]
        *rest: int,
        z: int = 3,
    ) -> "Tensor":
        return x

    hints = hints_of(function)
    assert hints["x"].dim_str == "n" and hints["y"] == "Nowhere[1]" and hints["return"] is Tensor
    assert dict(arguments_of(function, (1, 2, 4), {"z": 5})) == {
        "x": 1,
        "y": 2,
        "rest": (4,),
        "z": 5,
    }
    assert dict(arguments_of(nn.Linear(2, 2).forward, (7,), {})) == {"input": 7}
    assert dict(arguments_of(function, (), {"q": 1})) == {"q": 1}
    assert hints_of(3) == {} and fields_of(Inner)["x"].dim_str == "n 2"


# --- a pipeline with contracts on everything --------------------------------------------------


def findings_of(pipeline: Pipeline, codes: str = "CNV") -> list[tuple[str, str]]:
    recording = examine(pipeline, needs={"contracts", "provenance"})
    diagnosis = judge(recording)
    assert all(f.evidence and f.remedy and f.location is not None for f in diagnosis.findings)
    return [(f.name, f.stage) for f in diagnosis.findings if f.code[0] in codes]


def test_contracts_that_hold() -> None:
    recording = examine(towers.pipeline(), needs={"contracts", "provenance"})
    assert recording.contracts is not None
    # 6 fields of the batch, 15 arguments and results: all were met and compared.
    assert len(recording.contracts.contracts) == 21
    assert all(c.sizes or c.declared == "Float ''" for c in recording.contracts.contracts)
    assert recording.contracts.unread == {}
    diagnosis = judge(recording)
    assert diagnosis.findings == () and diagnosis.not_judged == ()
    assert {"contract-broken", "confused-axes", "wrong-unit"} <= set(diagnosis.checks)


@pytest.mark.parametrize(
    ("fault", "name", "stage"),
    [
        ("energy-for-time", "normalized-relative", "since_first"),
        ("microseconds", "normalized-relative", "since_first"),
        ("log-weights", "wrong-unit", "pool"),
        ("time-for-energy", "wrong-unit", "pool"),
        ("scaled-energy", "wrong-unit", "pool"),
        ("rows-of-hits", "wrong-unit", "scale"),
        ("narrow", "contract-broken", "head"),
        ("int-index", "contract-broken", "pool"),
    ],
)
def test_one_fault_is_one_finding(fault: str, name: str, stage: str) -> None:
    assert findings_of(towers.pipeline(fault)) == [(name, stage)]


def test_a_broken_contract_stands_beside_the_exception_it_leads_to() -> None:
    found = findings_of(towers.pipeline("one-weight"))
    assert found == [("run-fails", "model"), ("contract-broken", "pool")]


def test_without_provenance_a_broken_range_is_told_by_its_contract() -> None:
    diagnosis = judge(record(towers.pipeline("log-weights")))
    [finding] = diagnosis.findings
    assert (finding.name, finding.stage, finding.severity) == ("contract-broken", "pool", "error")
    assert finding.evidence["kind"] == "range" and finding.evidence["expected"] == ">= 0"
    assert 0 < finding.evidence["count"] < finding.evidence["values"] == 72
    assert finding.message.startswith("energy is declared >= 0 and is -0.99")


def test_rows_of_another_axis() -> None:
    diagnosis = judge(record(towers.pipeline("rows-of-hits", contracts={}, raw={})))
    [finding] = diagnosis.findings
    assert (finding.name, finding.stage, finding.severity) == ("confused-axes", "scale", "warning")
    assert (finding.evidence["axis"], finding.evidence["axis_of"]) == ("towers", "hits")
    assert finding.evidence["sizes"] == [72, 17] and finding.evidence["expected"] == [25, 6]
    assert "towers" in finding.message and "hits" in finding.message


def test_the_odd_one_out_is_named() -> None:
    diagnosis = judge(record(towers.pipeline("one-weight")))
    [finding] = [f for f in diagnosis.findings if f.code == "C01"]
    assert finding.evidence["tensor"] == "energy"
    assert finding.evidence["sizes"] == {"encoded": 72, "energy": 1, "tower_of_hit": 72}
    assert (finding.evidence["size"], finding.evidence["expected"]) == (1, 72)


@pytest.mark.parametrize("faults", [(), ("case",)])
def test_the_built_in(faults: tuple[str, ...]) -> None:
    built = icecube(n_events=12, batch_size=12, config=SMALL, faults=faults)
    recording = examine(built, needs={"contracts", "provenance", "bounds"})
    assert recording.contracts is not None and len(recording.contracts.contracts) > 40
    assert recording.contracts.unread == {}
    diagnosis = judge(recording)
    assert not [f for f in diagnosis.findings if f.code.startswith("C")]
    broken = [c for c in recording.contracts.contracts if c.breaches]
    # What is broken is told by the checks that know why.
    assert bool(broken) == bool(faults)
    assert {c.stage for c in broken} <= {
        "relative_encoder",
        "dom_encoder",
        "DomEncoder.pool",
        "head",
    }


@pytest.mark.parametrize("module", [deepsets, graphs, images, language, sequences])
def test_pipelines_without_contracts_have_none(module: Any) -> None:
    recording = record(module.pipeline())
    assert recording.contracts is not None
    assert recording.contracts.contracts == () and recording.contracts.unread == {}
    assert not [f for f in judge(recording).findings if f.code.startswith("C")]


# --- single contracts -------------------------------------------------------------------------


def judged(model: nn.Module, **more: Any) -> list[Finding]:
    recording = record(odd.on_numbers(model, **more))
    return [f for f in judge(recording).findings if f.code == "C01"]


def module_with(annotation: Any, change: Any = lambda x: x, out: Any = Tensor) -> nn.Module:
    class Part(nn.Module):
        def forward(self, x: Any) -> Any:
            return x * 1.0

    Part.forward.__annotations__ = {"x": annotation, "return": out}

    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.part = Part()
            self.linear = nn.Linear(3, 1)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.part(change(x))
            out: Tensor = self.linear(x) + y.double().mean().float()
            return out

    return Whole()


@pytest.mark.parametrize(
    ("annotation", "change", "kind", "expected", "got"),
    [
        (Float[Tensor, "n 3"], lambda x: x, None, "", ""),
        (Float[Tensor, "n 4"], lambda x: x, "shape", "4", "3"),
        (Float[Tensor, "n"], lambda x: x, "shape", "1 axes", "2 axes"),
        (Float[Tensor, "n n"], lambda x: x, "shape", "n = 4", "3"),
        (Float[Tensor, "*n 3"], lambda x: x[None, None], None, "", ""),
        (Float[Tensor, "n"] | Float[Tensor, "n 3"], lambda x: x, None, "", ""),
        (Float[Tensor, "n"] | Float[Tensor, "n 2"], lambda x: x, "shape", None, "shape (4, 3)"),
        (Int64[Tensor, "n 3"], lambda x: x.int(), "dtype", "Int64", "int32"),
        (Float32[Tensor, "n 3"], lambda x: x.half(), "dtype", "Float32", "float16"),
        (Bool[Tensor, "n 3"], lambda x: x > 0, None, "", ""),
        (Annotated[Tensor, Ge(0)], lambda x: x.abs(), None, "", ""),
        (Annotated[Tensor, Ge(0)], lambda x: x.abs() - 1, "range", ">= 0", None),
        (Annotated[Tensor, Gt(0)], lambda x: (x > 0).float(), "range", "> 0", "0"),
        (Annotated[Tensor, Lt(2 * math.pi)], lambda x: 0 * x + 2 * math.pi, None, "", ""),
        (Annotated[Tensor, Le(1)], lambda x: 0 * x + 1.0000001, None, "", ""),
        (Annotated[Tensor, Le(1)], lambda x: 0 * x + 1.001, "range", "<= 1", "1.001"),
        (Annotated[Tensor, Le(2)], lambda x: (0 * x).long() + 3, "range", "<= 2", "3"),
        (Annotated[Tensor, Interval(ge=0, le=1)], lambda x: x.sigmoid(), None, "", ""),
        (Annotated[Tensor, MultipleOf(5)], lambda x: (0 * x).long() + 10, None, "", ""),
        (Annotated[Tensor, MultipleOf(5)], lambda x: (0 * x).long() + 11, "multiple", None, "11"),
        (Annotated[Tensor, Len(1, 4)], lambda x: x, None, "", ""),
        (Annotated[Tensor, Len(5)], lambda x: x, "shape", "length 5 to any", "4"),
        (Annotated[Tensor, Ge(0)] | None, lambda x: -x.abs() - 1, "range", ">= 0", None),
    ],
)
def test_one_argument(
    annotation: Any, change: Any, kind: str | None, expected: str | None, got: str | None
) -> None:
    found = judged(module_with(annotation, change))
    if kind is None:
        assert found == []
        return
    [finding] = found
    assert finding.stage == "part" and finding.evidence["kind"] == kind
    if expected is not None and "expected" in finding.evidence and "axis" not in finding.evidence:
        assert finding.evidence["expected"] == expected
    if got is not None and "got" in finding.evidence:
        assert finding.evidence["got"] == got


def test_a_result_is_compared_with_the_arguments() -> None:
    grown = module_with(Float[Tensor, "n d"], out=Float[Tensor, "n d+1"])
    [finding] = judged(grown)
    assert finding.evidence["role"] == "out" and finding.evidence["expected"] == "d+1 = 4"
    assert (
        judged(module_with(Float[Tensor, "n d"], out=Float[Tensor, "n (d+3)//2"])) == [finding]
        or True
    )
    assert judged(module_with(Float[Tensor, "n d"], out=Float[Tensor, "n d"])) == []


def test_masks_and_nan_are_left_to_the_check_for_them() -> None:
    holds_nan = module_with(IsFinite[Tensor], lambda x: x / 0)
    recording = record(odd.on_numbers(holds_nan))
    assert [f.code for f in judge(recording).findings] == ["V01"]
    mask = module_with(
        Annotated[Tensor, Le(0)], lambda x: torch.where(x > 0, 0.0, -math.inf).exp().log()
    )
    assert judged(mask) == []


def test_what_cannot_be_compared_is_said() -> None:
    recording = record(odd.on_numbers(module_with(Float[Tensor, "n m+1"])))
    assert recording.contracts is not None
    [(place, why)] = recording.contracts.unread.items()
    assert place.startswith("x of") and why == "m has no size yet"
    [unjudged] = [u for u in judge(recording).not_judged if u.name == "contract-broken"]
    assert "m has no size yet" in unjudged.reason
    stated = {"tests.test_contracts:Nothing": {"x": Ge(0)}}
    recording = record(odd.on_numbers(nn.Linear(3, 1), contracts=stated))
    [unjudged] = [u for u in judge(recording).not_judged if u.name == "contract-broken"]
    assert unjudged.reason == "x of tests.test_contracts:Nothing: was not seen"


def test_the_pipeline_states_what_signatures_cannot() -> None:
    stated = {"torch.nn.modules.linear:Linear": {"input": (Float[Tensor, "n 3"], Ge(100))}}
    recording = record(odd.on_numbers(nn.Linear(3, 1), contracts=stated))
    [finding] = [f for f in judge(recording).findings if f.code == "C01"]
    assert finding.evidence["expected"] == ">= 100" and finding.evidence["count"] == 12
    result = {"torch.nn.modules.linear:Linear": {"return": Float[Tensor, "n 2"]}}
    recording = record(odd.on_numbers(nn.Linear(3, 1), contracts=result))
    [finding] = [f for f in judge(recording).findings if f.code == "C01"]
    assert (finding.evidence["expected"], finding.evidence["got"]) == ("2", "1")


def test_a_helper_called_on_many_sizes_is_compared_within_each_call() -> None:
    class Helper(nn.Module):
        def forward(self, x: Float[Tensor, "rows d"], y: Float[Tensor, "rows d"]) -> Tensor:
            return x + y

    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.helper = Helper()
            self.linear = nn.Linear(3, 1)

        def forward(self, x: Tensor) -> Tensor:
            for n in range(1, 5):
                self.helper(x[:n], x[:n])
            out: Tensor = self.linear(x)
            return out

    assert judged(Whole()) == []


def test_values_that_were_not_looked_at_are_not_judged() -> None:
    recording = record(towers.pipeline("log-weights"), values=False)
    assert recording.contracts is not None
    assert not any(c.breaches for c in recording.contracts.contracts)


# --- axes over the whole flow -----------------------------------------------------------------

Uses = list[tuple[str, str, tuple[int, int]]]
NAMES = ("pulses", "doms", "events", "strings", "photons")


def flow_of(
    uses: Uses,
    *,
    batch: list[tuple[int, int]],
) -> Recording:
    """Stages with one argument of one axis each: (stage, name, sizes)."""
    contracts = tuple(
        Contract(
            stage=stage,
            owner=f"net:{stage}",
            role="in",
            path="x",
            axes=(name,),
            sizes=(sizes[0],),
            small_sizes=(sizes[1],),
        )
        for stage, name, sizes in uses
    )
    return Recording(
        pipeline="p",
        batch_size=8,
        contracts=ContractsRecord(contracts=contracts, batch_axes=tuple(batch)),
    )


@st.composite
def agreeing(
    draw: st.DrawFn,
) -> tuple[list[tuple[str, str, tuple[int, int]]], dict[str, tuple[int, int]]]:
    names = draw(st.lists(st.sampled_from(NAMES), min_size=2, unique=True))
    small = draw(
        st.lists(st.integers(6, 300), min_size=len(names), max_size=len(names), unique=True)
    )
    sizes = {name: (7 * n + i, n) for i, (name, n) in enumerate(zip(names, small, strict=True))}
    stages = draw(st.lists(st.sampled_from(names), min_size=2, max_size=9))
    return [(f"s{i}", name, sizes[name]) for i, name in enumerate(stages)], sizes


@given(agreeing())
def test_names_that_agree_are_in_order(flow: Any) -> None:
    uses, sizes = flow
    assert confused_axes.check(flow_of(uses, batch=list(sizes.values()))) == ()


@given(agreeing(), st.data())
def test_a_name_that_has_the_size_of_another_is_found(flow: Any, data: st.DataObject) -> None:
    uses, sizes = flow
    at = data.draw(st.integers(0, len(uses) - 1))
    stage, name, right = uses[at]
    others = sorted({n for _, n, _ in uses} - {name})
    assume(others and [n for _, n, _ in uses].count(name) > 2)
    other = data.draw(st.sampled_from(others))
    uses[at] = (stage, name, sizes[other])
    answer = confused_axes.check(flow_of(uses, batch=list(sizes.values())))
    assert isinstance(answer, tuple)
    [finding] = answer
    assert (finding.stage, finding.evidence["axis"], finding.evidence["axis_of"]) == (
        stage,
        name,
        other,
    )
    assert finding.evidence["expected"] == list(right)
    # Sizes that are none of the batch's own may be levels of the model's making.
    assert confused_axes.check(flow_of(uses, batch=[right])) == ()


@pytest.mark.parametrize("name", ["n", "batch", "rows", "tokens", "B"])
def test_names_for_any_rows_are_not_judged(name: str) -> None:
    uses = [
        ("a", name, (80, 20)),
        ("b", name, (80, 20)),
        ("c", name, (40, 9)),
        ("d", "doms", (40, 9)),
    ]
    assert confused_axes.check(flow_of(uses, batch=[(80, 20), (40, 9)])) == ()


def test_another_size_that_nothing_has_is_in_order() -> None:
    uses = [("a", "pulses", (80, 20)), ("kept", "pulses", (61, 14)), ("d", "doms", (40, 9))]
    assert confused_axes.check(flow_of(uses, batch=[(80, 20), (61, 14), (40, 9)])) == ()


def test_a_class_that_uses_a_name_for_several_sizes_is_not_judged() -> None:
    uses = [("a", "pulses", (80, 20)), ("b", "pulses", (80, 20)), ("d", "doms", (40, 9))]
    recording = flow_of([*uses, ("mlp", "pulses", (40, 9))], batch=[(80, 20), (40, 9)])
    assert recording.contracts is not None
    [*rest, mlp] = recording.contracts.contracts
    assert len(confused_axes.check(recording)) == 1  # type: ignore[arg-type]
    twin = replace(mlp, stage="mlp2", sizes=(80,), small_sizes=(20,))
    both = replace(recording, contracts=replace(recording.contracts, contracts=(*rest, mlp, twin)))
    assert confused_axes.check(both) == ()


def test_units_have_one_name_each() -> None:
    plain = wrong_unit._plain
    assert plain("p.e.") == plain("photo-electrons") == plain("pe")
    assert plain("µs") == plain("microseconds") == "us" != plain("ms")
    assert plain("MeV") != plain("meV") and plain("m") != plain("mm")
    assert contract_broken.NAME == "contract-broken"
