"""What reaches the first learned layers: each check fires on its fault and is silent elsewhere."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor, nn

from icediag import Pipeline
from icediag.checks import CHECKS, judge, unregistered_tensor
from icediag.finding import Diagnosis, Finding
from icediag.icecube import pipeline as icecube
from icediag.instruments.examine import examine
from icediag.instruments.features import record_features
from icediag.instruments.features.columns import facts_of
from icediag.instruments.features.labels import Line
from icediag.instruments.features.numbers import Numbers, exact_to, grid_of
from icediag.instruments.features.trace import ordered
from icediag.instruments.shapes.slots import Slots
from icediag.recording import Recording, Unjudged
from icediag.records.features import FeaturesRecord, LooseState
from tests.pipelines import deepsets, graphs, images, language, odd, sequences, wild


def diagnosed(pipeline: Pipeline) -> Diagnosis:
    return judge(examine(pipeline, needs=("features", "provenance", "weighing")))


def severe(pipeline: Pipeline) -> set[tuple[str, str]]:
    return {(finding.name, finding.stage) for finding in diagnosed(pipeline).at_least("warning")}


def findings(pipeline: Pipeline, name: str) -> list[Finding]:
    return [finding for finding in diagnosed(pipeline).findings if finding.name == name]


@pytest.mark.parametrize(
    "build",
    [
        *wild.HEALTHY.values(),
        deepsets.pipeline,
        graphs.pipeline,
        images.pipeline,
        language.pipeline,
        sequences.pipeline,
        lambda: icecube(n_events=16, batch_size=16),
    ],
)
def test_silent_on_healthy_pipelines(build: Callable[[], Pipeline]) -> None:
    diagnosis = diagnosed(build())
    assert diagnosis.at_least("warning") == ()
    assert diagnosis.not_judged == ()


FAULTS: list[tuple[str, str, set[tuple[str, str]]]] = [
    ("pointnet", "unnormalized", {("unnormalized-input", "conv1")}),
    ("pointnet", "heavy-tail", {("heavy-tail", "conv1")}),
    ("pointnet", "half-time", {("lost-resolution", "pad_clouds")}),
    ("pointnet", "under-scaled", {("under-scaled-feature", "conv1")}),
    ("pointnet", "off-centre", {("off-centre-feature", "conv1")}),
    ("pointnet", "constant", {("constant-feature", "conv1")}),
    ("pointnet", "id", {("id-as-magnitude", "conv1")}),
    ("pointnet", "overflow", {("integer-overflow", "pad_clouds")}),
    ("pointnet", "padded-norm", {("padding-in-statistics", "bn")}),
    ("pointnet", "padded-mean", {("padding-in-statistics", "model")}),
    ("resnet", "plain-tensor", {("unregistered-tensor", "model")}),
    ("resnet", "plain-list", {("unregistered-tensor", "model")}),
    ("resnet", "no-normalizer", {("unnormalized-input", "stem")}),
    ("resnet", "double", {("double-normalization", "model")}),
    ("resnet", "pixels", {("normalizer-mismatch", "model"), ("over-scaled-feature", "stem")}),
    ("resnet", "already", {("double-normalization", "stem")}),
    ("resnet", "stale-statistics", {("normalizer-mismatch", "bn")}),
    ("gpt", "plain-tensor", {("unregistered-tensor", "model")}),
    ("gpt", "id", {("id-as-magnitude", "from_number")}),
    ("gpt", "half-ids", {("integer-overflow", "model")}),
    ("gpt", "padded-norm", {("padding-in-statistics", "model")}),
    ("gpt", "padded-loss", {("padding-in-statistics", "loss")}),
    ("gnn", "log-twice", {("double-normalization", "model")}),
    ("gnn", "uneven", {("uneven-scales", "norm")}),
    ("gnn", "id", {("id-as-magnitude", "charge")}),
    ("gnn", "over-scaled", {("over-scaled-feature", "convs.0.lin")}),
]


@pytest.mark.parametrize(("build", "fault", "expected"), FAULTS)
def test_one_fault_in_each_is_found_where_it_is(
    build: str, fault: str, expected: set[tuple[str, str]]
) -> None:
    found = [
        finding
        for finding in diagnosed(wild.HEALTHY[build](fault)).at_least("warning")
        if (finding.name, finding.stage) in expected
    ]
    assert {(f.name, f.stage) for f in found} == expected
    assert all(f.location and f.location.file == "tests/pipelines/wild.py" for f in found)
    assert severe(wild.HEALTHY[build](fault)) == expected


def test_every_check_of_features_has_fired() -> None:
    ours = {check.NAME for check in CHECKS if "features" in getattr(check, "NEEDS", ())}
    assert ours == {name for _, _, expected in FAULTS for name, _ in expected}


def test_constants_are_proposed_and_the_map_is_recovered() -> None:
    [note] = findings(icecube(n_events=24, batch_size=24), "under-scaled-feature")
    assert note.severity == "note" and note.stage == "dom_encoder.encode.0"
    columns = {column["map"]: column for column in note.evidence["columns"]}
    time, charge = columns["(time - 10000) / 30000"], columns["log10(charge) / 3"]
    assert note.location is not None and note.location.file == "icediag/model/dom_encoder.py"
    built = icecube(n_events=24, batch_size=24)
    batch = built.collate([built.dataset[i] for i in range(24)])
    for column, values in (
        (time, batch.pulse_features[:, 0]),
        (charge, batch.pulse_features[:, 1].log10()),
    ):
        scaled = (values.double() - column["proposed_shift"]) / column["proposed_scale"]
        # Constants are given to four digits.
        assert abs(float(scaled.median())) < 0.02
        assert float(scaled.std()) == pytest.approx(1, abs=0.02)
    assert time["proposed"].startswith("(time - ") and "log10(charge)" in charge["proposed"]


def test_the_case_says_how_near_its_weights_come_to_cancelling() -> None:
    faults = ("normalized-charge-weights",)
    [finding] = findings(icecube(n_events=24, batch_size=24, faults=faults), "normalized-weights")
    built = icecube(n_events=24, batch_size=24)
    batch = built.collate([built.dataset[i] for i in range(24)])
    weights = torch.log10(batch.pulse_features[:, 1] + 1e-8).double() / 3
    sums = [
        abs(float(weights[batch.pulse_to_dom_idx == dom].sum()))
        for dom in range(batch.num_doms)
        if int((batch.pulse_to_dom_idx == dom).sum()) > 1
    ]
    assert finding.evidence["smallest_sum"] == pytest.approx(min(sums), abs=1e-6)
    assert finding.evidence["groups"] == "pulse_to_dom_idx"
    assert 0 <= finding.evidence["smallest_share_left"] < 0.5
    assert "as small as" in finding.message


def test_a_relative_feature_of_scaled_values_is_told_without_a_contract() -> None:
    generator = torch.Generator().manual_seed(0)

    def collate(samples: list[Tensor]) -> dict[str, Tensor]:
        sizes = torch.tensor([len(sample) for sample in samples])
        track = torch.arange(len(samples)).repeat_interleave(sizes)
        return {"time": torch.cat(samples), "track": track}

    class Relative(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.out = nn.Linear(2, 1)

        def forward(self, batch: dict[str, Tensor]) -> Tensor:
            times, track = (batch["time"] - 10_000) / 30_000, batch["track"]
            first = torch.full((int(track.max()) + 1,), math.inf)
            first = first.scatter_reduce(0, track, times, "amin")
            since = times - first[track]
            out: Tensor = self.out(torch.stack([since, times], 1))
            return out

    built = Pipeline(
        name="relative",
        dataset=[10_000 + 2000 * torch.rand(n % 9 + 3, generator=generator) for n in range(40)],
        collate=collate,
        model=Relative(),
        loss=lambda out, batch: out.square().mean(),
        batch_size=40,
        raw={"time": lambda batch: batch["time"]},
    )
    [note] = findings(built, "under-scaled-feature")
    assert note.severity == "note"
    maps = {column["map"] for column in note.evidence["columns"]}
    assert maps == {"time / 30000, shifted in each track", "(time - 10000) / 30000"}


# --- Values that must not be called faults --------------------------------------------------------


def on_table(table: Tensor, model: nn.Module | None = None, **more: Any) -> Pipeline:
    torch.manual_seed(0)
    return Pipeline(
        name="table",
        dataset=list(table),
        collate=torch.stack,
        model=model or nn.Sequential(nn.Linear(table.shape[1], 4), nn.ReLU(), nn.Linear(4, 1)),
        loss=lambda out, batch: out.square().mean(),
        batch_size=len(table),
        **more,
    )


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3))


def beside(column: Tensor, n: int = 2) -> Tensor:
    return torch.cat([normal(len(column), n), column[:, None]], dim=1)


ROWS = 600
HARMLESS = {
    "one-hot": torch.eye(10)[torch.randint(0, 9, (ROWS,), generator=torch.manual_seed(0))],
    "a flag that is rarely set": beside(torch.zeros(ROWS)),
    "binary": beside((normal(ROWS) > 1.8).float()),
    "sparse": beside(torch.where(normal(ROWS) > 1, normal(ROWS).abs() * 0.001, 0.0)),
    "in 0..1": torch.rand(ROWS, 5, generator=torch.manual_seed(0)),
    "counts": beside(torch.randint(0, 12, (ROWS,), generator=torch.manual_seed(0)).float()),
    "log-normal": beside(normal(ROWS).exp()),
    "exponential": beside(-torch.rand(ROWS, generator=torch.manual_seed(0)).log()),
    "the iris": beside(5.8 + 0.8 * normal(ROWS)),
    "ages": beside(45 + 15 * normal(ROWS)),
    "positional encoding": torch.cat(
        [(torch.arange(ROWS)[:, None] * 2.0**-k).sin() for k in range(8)], dim=1
    ),
    "waves of one number": torch.cat(
        [
            wave(10000 ** (-k / 16) * torch.linspace(0.9, 3.0, ROWS)[:, None])
            for wave in (torch.sin, torch.cos)
            for k in range(16)
        ],
        dim=1,
    ),
    "unit vectors": nn.functional.normalize(normal(ROWS, 32), dim=1),
    "few rows": 1000 * normal(8, 3),
    "one constant column alone": torch.ones(ROWS, 1),
    "padded with zeros": beside(torch.cat([normal(ROWS // 2), torch.zeros(ROWS // 2)])),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_no_alarm_on_values_that_are_in_order(name: str) -> None:
    assert severe(on_table(HARMLESS[name])) == set()


@given(st.integers(0, 2**31), st.floats(0.02, 9.0), st.floats(-1.5, 1.5))
def test_no_alarm_on_any_normal_column_of_order_one(seed: int, scale: float, shift: float) -> None:
    torch.manual_seed(seed)
    table = torch.randn(120, 3)
    table[:, 0] = table[:, 0] * scale + shift
    assert severe(on_table(table)) <= {("uneven-scales", "0")} if scale < 0.03 else True
    assert not severe(on_table(table)) - {("uneven-scales", "0")}


@pytest.mark.parametrize(
    ("values", "name"),
    [
        (12909 + 4385 * normal(ROWS), "unnormalized-input"),
        (30 + normal(ROWS), "off-centre-feature"),
        (0.001 * normal(ROWS), "under-scaled-feature"),
        (torch.full((ROWS,), 0.7), "constant-feature"),
        ((3 * normal(ROWS)).exp(), "heavy-tail"),
        (torch.tensor([211.0, 22.0, 211.0, 211.0])[torch.arange(ROWS) % 4], "unnormalized-input"),
    ],
)
def test_one_bad_column_is_named(values: Tensor, name: str) -> None:
    found = findings(on_table(beside(values)), name)
    assert [f.severity for f in found] == ["warning"]
    assert found[0].stage == "0" and "olumn 2" in found[0].message


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda x: (x - 127) / 60, set()),
        (lambda x: ((x - 127) / 60 - 127) / 60, {("off-centre-feature", "0")}),
        # Nearly all of it background.
        (lambda x: ((x > 250) * 255.0 - 33) / 79, set()),
    ],
)
def test_channels_of_images_far_off_are_named(
    change: Callable[[Tensor], Tensor], expected: set[tuple[str, str]]
) -> None:
    torch.manual_seed(0)
    images = change(torch.randint(0, 256, (ROWS, 3, 8, 8)).float())
    layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 4))
    assert severe(on_table(images, layers)) == expected


def test_codes_are_not_told_to_be_scaled_alone() -> None:
    codes = torch.tensor([11.0, 211.0, 130.0])[torch.arange(ROWS) % 3]
    [finding] = findings(on_table(beside(codes)), "unnormalized-input")
    assert finding.remedy.endswith("what is a code wants an embedding.")
    # Few and small, or mostly 0, they are classes and flags.
    assert severe(on_table(beside(codes.div(100).round()))) == set()
    assert severe(on_table(beside(codes * (torch.arange(ROWS) % 20 == 0)))) == set()


class Basis(nn.Module):
    """A distance as Gaussians beside each other, some of them where no distance ever is."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        apart = x[:, :1] - torch.linspace(0, 4, 8)
        out: Tensor = self.layer(torch.exp(-10 * apart.square()))
        return out


def test_basis_functions_are_in_order() -> None:
    distances = 1 + 2 * normal(ROWS, 1).abs()
    assert severe(on_table(distances, Basis())) == set()


def test_a_batch_norm_at_the_door_takes_raw_columns() -> None:
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 1))
    assert severe(on_table(beside(12909 + 4385 * normal(ROWS)), model)) == set()


class Frozen(nn.Module):
    """A pretrained part under no_grad: what it gives is learned all the same."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Linear(3, 8).requires_grad_(False)
        self.head = nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            hidden = self.backbone(x) * 1000
        out: Tensor = self.head(hidden.detach())
        return out


def test_what_comes_from_frozen_weights_is_no_feature() -> None:
    found = record_features(on_table(normal(64, 3), Frozen()))
    assert [table.stage for table in found.tables] == ["backbone"]


class Own(nn.Module):
    """Weights used without a module, on the left."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight @ x.T


def test_weights_without_a_layer_are_met_too() -> None:
    [table] = record_features(on_table(normal(64, 3) * 500, Own())).tables
    assert (table.stage, table.width, table.rows) == ("model", 3, 64)
    assert sum(column.weighs or 0 for column in table.columns) == pytest.approx(1)


class Joins(nn.Module):
    """Features beside an embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 6)
        self.out = nn.Linear(6 + 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        kind = self.embed(x[:, 2].long())
        out: Tensor = self.out(torch.cat([kind, x[:, :2]], dim=1))
        return out


def test_features_joined_with_learned_columns_keep_their_place() -> None:
    table = torch.cat([normal(64, 2) * 300, torch.randint(0, 5, (64, 1)).float()], dim=1)
    [seen] = record_features(on_table(table, Joins())).tables
    assert seen.joined and [column.index for column in seen.columns] == [6, 7]
    assert ("unnormalized-input", "out") in severe(on_table(table, Joins()))


# --- Twice, and by constants ----------------------------------------------------------------------


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale, self.again = Scale(), Scale()
        self.out = nn.Linear(1, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(self.again(self.scale(x)))
        return out


class Scale(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x - 100) / 300


def test_the_same_map_twice_is_an_error() -> None:
    table = (100 * normal(ROWS, 1)).round()
    [finding] = findings(on_table(table, Twice()), "double-normalization")
    assert finding.severity == "error" and finding.evidence["first"] == "scale"
    once = nn.Sequential(Scale(), nn.Linear(1, 1))
    assert not findings(on_table(table, once), "double-normalization")


def test_standardising_what_is_standard_by_its_own_statistics_is_in_order() -> None:
    table = normal(ROWS, 2) * 0.95 + 0.1

    class Fitted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mean", table.mean(0))
            self.register_buffer("std", table.std(0))
            self.mean: Tensor
            self.std: Tensor
            self.out = nn.Linear(2, 1)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.out((x - self.mean) / (self.std + 1e-6))
            return out

    model = Fitted()
    assert severe(on_table(table, model)) == set()
    assert ("normalizer-mismatch", "model") in severe(on_table(table * 1000, model))


def test_an_index_into_a_rising_table_is_an_order() -> None:
    assert ordered(torch.linspace(1, 0, 50)) and ordered(torch.arange(9))
    assert not ordered(torch.randn(50, 3))

    class Diffusion(nn.Module):
        """The step is an index into a schedule, and a magnitude."""

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("alphas", torch.linspace(1, 0, 200) ** 2)
            self.alphas: Tensor
            self.out = nn.Linear(2, 1)

        def forward(self, x: Tensor) -> Tensor:
            step = x[:, 1].long()
            alpha = self.alphas[step]
            out: Tensor = self.out(torch.stack([x[:, 0] * alpha, step / 200], dim=1))
            return out

    steps = torch.randint(0, 200, (ROWS,), generator=torch.manual_seed(0)).float()
    table = torch.stack([normal(ROWS), steps], dim=1)
    assert severe(on_table(table, Diffusion())) == set()


def test_what_the_pipeline_calls_an_id() -> None:
    ids = torch.randint(0, 5000, (ROWS,), generator=torch.manual_seed(0)).float()
    table = beside(ids / 5000)
    table[:, 2] = ids
    model = nn.Sequential(Divide(), nn.Linear(3, 1))
    raw = {"sensor_id": lambda batch: batch[:, 2]}
    assert severe(on_table(table, model, raw=raw)) == {("id-as-magnitude", "1")}
    assert severe(on_table(table, model, raw={"height": raw["sensor_id"]})) == set()


class Divide(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x / torch.tensor([1.0, 1.0, 5000.0])


# --- Numbers and their types ----------------------------------------------------------------------


@given(
    arrays(np.int16, st.integers(1, 20), elements=st.integers(-3000, 3000)),
    st.integers(-200, 200),
    st.sampled_from(["add", "sub", "mul"]),
)
def test_overflow_is_what_int64_says(values: Any, factor: int, name: str) -> None:
    numbers = Numbers(lambda: Line("s", None, None), 4, 4)
    x = torch.from_numpy(values)
    expected = numbers.before(name, (x, factor), {})
    assert expected is not None
    given_by = getattr(torch, name)(x, factor)
    numbers.after(name, expected, given_by)
    exact = getattr(np, {"add": "add", "sub": "subtract", "mul": "multiply"}[name])(
        values.astype(np.int64), factor
    )
    wrong = int((given_by.numpy() != exact).sum())
    assert sum(o.wrapped for o in numbers.overflows.values()) == wrong
    assert bool(numbers.overflows) == bool(wrong)


@pytest.mark.parametrize(
    ("dtype", "limit"), [(torch.bfloat16, 256), (torch.float16, 2048), (torch.float32, 2**24)]
)
def test_whole_numbers_are_exact_up_to(dtype: torch.dtype, limit: int) -> None:
    assert exact_to(dtype) == limit
    assert float(torch.tensor(limit + 1).to(dtype)) == limit
    assert float(torch.tensor(limit - 1).to(dtype)) == limit - 1


def test_a_batch_size_at_which_it_would_overflow() -> None:
    class Keyed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.out = nn.Linear(2, 1)

        def forward(self, x: Tensor) -> Tensor:
            key = x[:, 2].short() * 500
            out: Tensor = self.out(x[:, :2]) + 0 * key[:, None]
            return out

    table = torch.cat([normal(256, 2), torch.arange(256.0)[:, None]], dim=1)
    built = on_table(table, Keyed())
    diagnosis = judge(examine(built, needs=("features",), batch_size=40))
    [finding] = [f for f in diagnosis.findings if f.name == "integer-overflow"]
    assert finding.severity == "warning" and finding.evidence["at_batch_size"] == 256
    small = replace(built, batch_size=40)
    assert not findings(small, "integer-overflow")


def test_half_precision_of_scaled_values_and_autocast_are_in_order() -> None:
    class Cast(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.out = nn.Linear(3, 1).half()

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.out(x.half()).float()
            return out

    class Auto(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.out = nn.Linear(3, 1)

        def forward(self, x: Tensor) -> Tensor:
            with torch.autocast("cpu", torch.bfloat16):
                out: Tensor = self.out(x)
            return out.float()

    assert severe(on_table(normal(64, 3), Cast())) == set()
    assert not findings(on_table(900 * normal(64, 3), Auto()), "lost-resolution")


class Narrow(nn.Module):
    """Casts its table, and works on it."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self.out = nn.Linear(3, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(x.to(self.dtype).float())
        return out


def ticks(most: int, n: int = ROWS) -> Tensor:
    """Whole numbers below `most`."""
    return torch.randint(0, most, (n,), generator=torch.manual_seed(0)).float()


@pytest.mark.parametrize(
    ("column", "dtype", "severity", "step"),
    [
        (ticks(10_000, 3000) * 0.1, torch.float16, "warning", 0.1),
        (ticks(20_000, 3000) * 0.01, torch.bfloat16, "warning", 0.01),
        ((ticks(10_000, 3000) - 2000) / 30_000, torch.bfloat16, "note", 1 / 30_000),
        # Nothing of their own is lost.
        (100 * normal(3000), torch.float16, None, None),
        (torch.rand(3000, generator=torch.manual_seed(0)), torch.bfloat16, None, None),
        (ticks(2000, 3000), torch.float16, None, None),
        (ticks(256, 3000) / 255, torch.bfloat16, None, None),
        ((ticks(256, 3000) / 255 - 0.449) / 0.226, torch.float16, None, None),
        (ticks(2000, 3000) * 0.5, torch.float16, None, None),
        (ticks(400, 3000), torch.bfloat16, None, None),  # a few beyond 256 become even numbers
        (torch.zeros(3000), torch.float16, None, None),
    ],
)
def test_a_grid_of_the_values_own_is_lost(
    column: Tensor, dtype: torch.dtype, severity: str | None, step: float | None
) -> None:
    found = findings(on_table(beside(column), Narrow(dtype)), "lost-resolution")
    assert [f.severity for f in found] == ([] if severity is None else [severity])
    for finding in found:
        assert finding.evidence["own_step"] == pytest.approx(step, rel=1e-3)
        assert finding.evidence["distinct_after"] <= 0.8 * finding.evidence["distinct_before"]
        assert finding.stage == "model" and "different values become" in finding.message


@given(
    st.floats(1e-3, 1e3),
    st.integers(-(2**20), 2**20),
    st.lists(st.integers(0, 4000), min_size=8, max_size=60, unique=True),
    st.sampled_from([torch.float32, torch.float64]),
)
def test_the_grid_of_values_is_found(
    step: float, start: int, places: list[int], dtype: torch.dtype
) -> None:
    places = sorted({0, 1, *places})
    values = (torch.tensor(places, dtype=torch.float64) + start) * step
    found = grid_of(torch.unique(values.to(dtype).double()), dtype)
    noise = torch.finfo(dtype).eps * (abs(start) + 4000)
    if noise < 1e-3:
        assert found == pytest.approx(step, rel=1e-2)


def test_random_values_lie_on_no_grid() -> None:
    for seed in range(50):
        values = torch.rand(8, generator=torch.manual_seed(seed), dtype=torch.float64)
        assert grid_of(values.sort().values, torch.float32) is None


def test_names_collide_however_few_are_beyond_the_limit() -> None:
    class Keyed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rows = nn.Embedding(512, 4)
            self.out = nn.Linear(6, 1)

        def forward(self, x: Tensor) -> Tensor:
            narrow = x.bfloat16()
            rows = self.rows(narrow[:, 2].long())
            out: Tensor = self.out(torch.cat([x[:, :2], rows], 1))
            return out

    found = diagnosed(on_table(beside(ticks(400)), Keyed())).findings
    assert [f.severity for f in found if f.name == "integer-overflow"] == ["error"]
    assert not [f for f in found if f.name == "lost-resolution"]


def test_unix_time_in_single_precision() -> None:
    table = beside(1.7e9 + 5e6 * torch.rand(ROWS, generator=torch.manual_seed(0)))
    found = findings(on_table(table), "lost-resolution")
    assert {f.stage for f in found} == {"dataset item"}
    assert found[0].evidence["step_of_type"] == 128


# --- State that torch does not know of ------------------------------------------------------------


class Plain(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.shift = torch.tensor([1.0, 2.0, 3.0])
        self.one = torch.tensor(2.0)
        self.unused = torch.ones(7)
        self.teacher = [nn.Linear(3, 3)]
        self.out = nn.Linear(3, 1)

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "moves itself":
            x = x - self.shift.to(x.device)
        elif self.how == "stays":
            x = x - self.shift
        elif self.how == "reads":
            x = x - self.shift if float(x.sum()) != 0 else x
        elif self.how == "number":
            x = x * self.one
        elif self.how == "teacher":
            with torch.no_grad():
                x = x + 0 * self.teacher[0](x)
        elif self.how == "student":
            x = x + self.teacher[0](x)
        out: Tensor = self.out(x)
        return out


@pytest.mark.parametrize(
    ("how", "severity"),
    [
        ("moves itself", None),
        ("number", None),
        ("teacher", None),
        ("stays", "warning"),
        ("reads", "warning"),
        ("student", "error"),
    ],
)
def test_plain_tensors(how: str, severity: str | None) -> None:
    model = Plain(how)
    before = {name: id(value) for name, value in model.named_parameters()}
    found = findings(on_table(normal(64, 3), model), "unregistered-tensor")
    assert [f.severity for f in found] == ([severity] if severity else [])
    assert {name: id(value) for name, value in model.named_parameters()} == before
    assert not any(p.is_meta for p in model.parameters())


def test_where_the_moved_run_ends_early_that_is_said() -> None:
    loose = LooseState(module="m", attribute="t", kind="tensor", numbers=3, asks=False)
    record = FeaturesRecord(batch_size=2, loose=(loose,))
    answer = unregistered_tensor.check(Recording(pipeline="p", batch_size=2, features=record))
    assert isinstance(answer, Unjudged) and "m.t" in answer.reason


# --- Padding --------------------------------------------------------------------------------------


def test_slots_from_lengths_masks_and_sorted_samples() -> None:
    table = torch.zeros(3, 4, 2)
    for i, n in enumerate((2, 4, 1)):
        table[i, :n] = 1.0
    kept = [[1, 1, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0]]
    for batch, lengths in (
        ({"x": table, "n": torch.tensor([2, 4, 1])}, {}),
        ({"x": table}, {"x": [2, 4, 1]}),
        ({"x": table, "m": table[..., 0] > 0}, {}),
        ({"x": table, "m": table[..., 0] == 0}, {}),
    ):
        assert Slots(batch, lengths, 3).of[3, 4].astype(int).tolist() == kept
    # Padded to one size: no sample fills all slots; lengths must fit what lies before them.
    longer = torch.cat([table, torch.zeros(3, 2, 2)], 1)
    fixed = [[*row, 0, 0] for row in kept]
    assert Slots({"x": longer}, {"x": [2, 4, 1]}, 3).of[3, 6].astype(int).tolist() == fixed
    assert not Slots({"x": longer, "class": torch.tensor([5, 5, 4])}, {}, 3).of
    # A tokenizer's mask of whole numbers.
    ids, mask = torch.arange(18).reshape(3, 6), torch.tensor(fixed)
    assert Slots({"ids": ids, "mask": mask}, {}, 3).of[3, 6].astype(int).tolist() == fixed
    assert not Slots({"ids": mask.flip(1)}, {}, 3).of
    order = torch.tensor([1, 0, 2])
    [by_length] = Slots({"x": table[order]}, {"x": [2, 4, 1]}, 3).of.values()
    assert by_length.sum(1).tolist() == [4, 2, 1]
    # A picture with a black border is not padded.
    assert not Slots({"x": table}, {}, 3).of
    # Tokens but the last, and tokens but the first, of two, four and one.
    tokens = torch.tensor([[5, 6, 0, 0], [7, 8, 9, 4], [3, 0, 0, 0]])
    for part in (tokens[:, :-1], tokens[:, 1:]):
        [shifted] = Slots({"tokens": part}, {"": [2, 4, 1]}, 3).of.values()
        assert shifted.astype(int).tolist() == [[1, 1, 0], [1, 1, 1], [1, 0, 0]]


def test_padded_rows_are_left_out() -> None:
    [table] = record_features(wild.pointnet()).tables
    lengths = [len(sample["xyz"]) for sample in wild.clouds("")]
    assert table.rows == sum(lengths)
    assert table.padded == len(lengths) * max(lengths) - sum(lengths)


def test_sizes_that_are_fixed_are_not_judged() -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.out = nn.Linear(5 * 6, 1)

        def forward(self, batch: tuple[Tensor, ...]) -> Tensor:
            out: Tensor = self.out(batch[0].flatten(1)).squeeze(-1)
            return out

    built = replace(deepsets.pipeline(), model=Fixed())
    diagnosis = diagnosed(built)
    assert "padding-in-statistics" in {item.name for item in diagnosis.not_judged}
    assert not diagnosis.at_least("warning")


# --- Facts, files, and what is left behind --------------------------------------------------------


@given(arrays(np.float64, st.integers(1, 60), elements=st.floats(-1e6, 1e6)))
def test_facts_of_columns(values: Any) -> None:
    facts = facts_of(values)
    assert facts is not None
    assert facts.low <= facts.median <= facts.high
    assert facts.std == pytest.approx(float(np.std(values)), abs=1e-6)
    assert facts.distinct == len(set(values.tolist()))
    assert facts.constant == (facts.distinct == 1)
    assert 0 <= facts.top_share <= 1
    assert facts_of(np.array([math.nan])) is None


def test_the_record_is_read_back() -> None:
    recording = examine(wild.pointnet("padded-norm"), needs=("features",))
    assert recording.features is not None and recording.features.padding
    assert Recording.from_json(recording.to_json()) == recording


@pytest.mark.parametrize(
    "model",
    [
        odd.Twice(),
        odd.NoParameters(),
        odd.OwnTrain(),
        odd.FrozenNorm(),
        odd.RaisesMidway(),
        odd.Checkpointed(),
        odd.Lazy(),
        odd.Stateful(),
        odd.Forces(),
        odd.OwnParameter(),
        lambda x: x.sum(1),
    ],
    ids=lambda model: type(model).__name__,
)
def test_odd_models_are_met_and_left_alone(model: Any) -> None:
    built = odd.on_numbers(model)
    state = torch.get_rng_state()
    record_features(built)
    assert torch.equal(torch.get_rng_state(), state)
    if isinstance(model, odd.Lazy):
        assert isinstance(model.layer.weight, nn.UninitializedParameter)
    if isinstance(model, odd.Stateful):
        assert model.calls == 0 and not model.history


def test_everything_is_left_as_it_was() -> None:
    built = wild.resnet("plain-tensor")
    before = {name: value.clone() for name, value in built.model.state_dict().items()}
    images = [image.clone() for image, _ in built.dataset]
    record_features(built)
    record_features(wild.pointnet("padded-norm"))
    after = built.model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert all(torch.equal(a, b) for a, (b, _) in zip(images, built.dataset, strict=True))
    assert built.model.training
