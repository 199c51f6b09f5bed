"""What must not change when a batch is put together otherwise: what fires, what is silent."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from icediag import Pipeline
from icediag.checks import (
    batch_leak,
    events_lost,
    irreproducible_training,
    judge,
    not_deterministic,
    padding_leak,
    partial_order,
    single_event,
    small_event,
    targets_shuffled,
)
from icediag.finding import Diagnosis, Finding
from icediag.icecube import pipeline as icecube
from icediag.instruments.invariances import record_invariances
from icediag.instruments.running.lab import Lab
from icediag.model.network import NetworkConfig
from icediag.recording import Recording
from icediag.records.invariances import InvariancesRecord, Trial
from tests.pipelines import deepsets, graphs, images, language, odd, regrouped, sequences
from tests.test_preserve import FACTORIES, generators, snapshot

CHECKS = (
    batch_leak,
    padding_leak,
    targets_shuffled,
    events_lost,
    not_deterministic,
    single_event,
    small_event,
    partial_order,
    irreproducible_training,
)


def judged(record: InvariancesRecord) -> Diagnosis:
    return judge(Recording(pipeline="p", batch_size=1, invariances=record), CHECKS)


def seen(pipeline: Pipeline) -> tuple[InvariancesRecord, dict[str, Finding]]:
    record = record_invariances(pipeline)
    return record, {finding.name: finding for finding in judged(record).findings}


def trial(record: InvariancesRecord, change: str) -> Trial:
    return next(trial for trial in record.trials if trial.change == change)


@pytest.mark.parametrize(
    "factory",
    [
        deepsets.pipeline,
        graphs.pipeline,
        images.pipeline,
        language.pipeline,
        sequences.pipeline,
        regrouped.pipeline,
        lambda: regrouped.pipeline("sorted"),
    ],
)
def test_silent_on_pipelines_of_others(factory: Callable[[], Pipeline]) -> None:
    record = record_invariances(factory())
    diagnosis = judged(record)
    assert not diagnosis.at_least("warning")
    assert record.precise and record.samples >= 6
    # Not because nothing was tried.
    if factory is regrouped.pipeline:
        assert {t.change for t in record.trials} >= {"content", "company", "gradient"}
        assert all(t.events for t in record.trials)
        [pair] = record.pairings
        assert pair.rows == 4 * record.samples and not pair.astray and not pair.reordered


@pytest.mark.parametrize("head", ["unit_vector", "bounded_angles", "angles"])
def test_silent_on_the_built_in(head: Any) -> None:
    config = NetworkConfig(d_model=16, n_heads=2, n_layers=1, head=head)
    record = record_invariances(icecube(n_events=12, batch_size=12, config=config))
    assert judged(record).findings == ()
    assert not any(t.moved for t in record.trials if t.change != "shift of time")
    assert trial(record, "shift of time").moved
    assert trial(record, "order of rows").events
    [targets] = [kept for kept in record.conservation if kept.kind == "events"]
    assert targets.arrived == targets.events == 12


@pytest.mark.parametrize(
    ("fault", "check", "severity", "stage"),
    [
        ("centred over the batch", batch_leak, "error", "model"),
        ("batch statistics in evaluation", batch_leak, "error", "norm"),
        ("count of the batch", batch_leak, "error", None),
        ("standardised", batch_leak, "error", "collate"),
        ("no padding mask", padding_leak, "warning", "layer.self_attn"),
        ("padded length", padding_leak, "warning", "Attending.pool"),
        ("targets sorted", targets_shuffled, "error", "collate"),
        ("dropping", events_lost, "warning", "collate"),
        ("doubling", events_lost, "warning", "collate"),
        ("cut", events_lost, "note", "collate"),
        ("cut", partial_order, "note", None),
        ("dropout in evaluation", not_deterministic, "warning", None),
        ("sampling", not_deterministic, "note", None),
        ("squeeze", single_event, "warning", None),
        ("spread of one", small_event, "warning", None),
    ],
)
def test_each_fires(fault: str, check: Any, severity: str, stage: str | None) -> None:
    made = regrouped.pipeline(fault)
    if check is small_event:
        made = dataclasses.replace(made, dataset=[s for s in made.dataset if len(s["x"]) > 1])
    _, found = seen(made)
    finding = found[check.NAME]
    assert finding.severity == severity, finding
    if stage is not None and stage != "model":
        assert finding.stage.startswith(stage), finding.stage
    assert finding.message and finding.remedy and finding.evidence
    # Nothing else that is severe: a fault has one name.
    others = {name for name, f in found.items() if f.severity != "note"} - {check.NAME}
    assert others <= {small_event.NAME, single_event.NAME}, others


def test_the_worst_pair_is_named() -> None:
    class Reads(regrouped.Attending):
        """The event after the first one adds to it."""

        def pool(self, hidden: Tensor, absent: Tensor) -> Tensor:
            pooled = super().pool(hidden, absent)
            return torch.cat([pooled[:1] + 0.1 * pooled[-1:], pooled[1:]])

    torch.manual_seed(0)
    record, found = seen(dataclasses.replace(regrouped.pipeline(), model=Reads(None)))
    finding = found["batch-leak"]
    content = trial(record, "content")
    # The longest of the probes stands last, the shortest first.
    assert (content.event, content.neighbour) == (9, 7)
    assert content.moved == 1
    slope = trial(record, "gradient")
    assert (slope.event, slope.neighbour) == (9, 7)
    assert slope.native is not None and 0.001 < slope.native < 1
    assert finding.evidence["slope_pair"] == (9, 7)


def test_a_leak_of_rounding_size_is_none() -> None:
    """A running total over the whole batch, whose ends are subtracted: exact but for rounding."""

    class Running(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lift = nn.Linear(12, 4)

        def forward(self, batch: dict[str, Tensor]) -> Tensor:
            counts = batch["nodes_of_graph"]
            total = self.lift(batch["x"]).cumsum(0)[counts.cumsum(0) - 1]
            out: Tensor = total.diff(dim=0, prepend=total.new_zeros(1, 4)).sum(1)
            return out

    torch.manual_seed(0)
    record, found = seen(dataclasses.replace(graphs.pipeline(), model=Running()))
    assert not [f for f in found.values() if f.severity != "note"]
    assert trial(record, "company").size > 0


def test_without_a_copy_in_float64() -> None:
    class Single(regrouped.Attending):
        """Tied to float32, and not to be copied."""

        def __deepcopy__(self, memo: Any) -> Any:
            raise TypeError("not to be copied")

    for fault in (None, "centred over the batch"):
        torch.manual_seed(0)
        made = dataclasses.replace(regrouped.pipeline(fault), model=Single(fault))
        record, found = seen(made)
        assert not record.precise
        assert ("batch-leak" in found) == (fault is not None)
        assert "padding-leak" not in found


def test_rows_of_all_events_are_outputs_too() -> None:
    """One prediction a node, flat: rows of an event are found by counting."""

    class ByNode(nn.Module):
        def __init__(self, *, leaks: bool) -> None:
            super().__init__()
            self.lift, self.leaks = nn.Linear(12, 3), leaks

        def forward(self, batch: dict[str, Tensor]) -> Tensor:
            nodes: Tensor = self.lift(batch["x"])
            return (nodes - nodes.mean(0)) if self.leaks else nodes

    for leaks in (False, True):
        torch.manual_seed(0)
        made = dataclasses.replace(
            graphs.pipeline(), model=ByNode(leaks=leaks), loss=lambda p, _: p.square().mean()
        )
        record, found = seen(made)
        assert trial(record, "content").events == 3
        assert ("batch-leak" in found) == leaks


@pytest.mark.parametrize("how", ["turns", "packed"])
@pytest.mark.parametrize("leaks", [False, True])
def test_rows_of_events_in_turn(how: str, leaks: bool) -> None:
    """Steps of sequences whose first axis is time, made one table: no row lies beside its event's.

    Of a packed sequence the rows of an event are at no places that its size shows.
    """

    class Tagger(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.out = nn.GRU(5, 6), nn.Linear(6, 4)

        def forward(self, x: Any) -> Tensor:
            hidden, _ = self.rnn(x)
            flat = hidden.data if how == "packed" else hidden.flatten(0, 1)
            table: Tensor = self.out(flat)
            return table - table.mean(0) if leaks else table

    def collate(samples: list[Tensor]) -> Any:
        if how == "packed":
            return nn.utils.rnn.pack_sequence(samples, enforce_sorted=False)
        return torch.stack(samples, 1)

    torch.manual_seed(0)
    lengths = (7, 3, 9, 4, 5, 8, 6, 7) if how == "packed" else (7,) * 8
    record, found = seen(
        Pipeline(
            name="tagger",
            dataset=[torch.randn(n, 5) for n in lengths],
            collate=collate,
            model=Tagger(),
            loss=lambda table, _: table.square().mean(),
            batch_size=8,
        )
    )
    assert ("batch-leak" in found) == leaks
    # Where all is well a packed sequence cannot be judged, and the other is.
    assert any(t.change == "company" for t in record.trials) == (how == "turns" or leaks)


def test_a_checkpoint_that_bears_backward_alone() -> None:
    class Reentrant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.inner, self.head = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 1)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.head(checkpoint(self.inner, self.first(x), use_reentrant=True))
            return out

    record, found = seen(odd.on_numbers(Reentrant()))
    assert "single-event" not in found
    assert record.training is not None and record.training.scale > 0


def test_complex_weights_are_compared_whole() -> None:
    class Waves(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(2, 2, dtype=torch.cfloat))

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = (torch.fft.rfft(x) @ self.weight).abs()
            return out

    record, found = seen(odd.on_numbers(Waves()))  # a warning of torch is an error here
    assert record.training is not None and record.training.scale > 0
    assert "irreproducible-training" not in found


def test_what_is_kept_from_run_to_run() -> None:
    class Carries(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.last = nn.Linear(3, 3), 0.0

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.layer(x) + self.last
            self.last = float(out.detach().mean())
            return out

    record, found = seen(odd.on_numbers(Carries()))
    assert record.evaluation is not None and not record.evaluation.same_seed
    assert found["not-deterministic"].severity == "warning"
    reasons = {item.name for item in judged(record).not_judged}
    assert {"batch-leak", "padding-leak", "targets-shuffled"} <= reasons


def test_training_that_does_not_repeat() -> None:
    own = torch.Generator().manual_seed(0)

    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 1)

        def forward(self, x: Tensor) -> Tensor:
            if self.training:
                x = x + torch.randn(x.shape, generator=own)
            out: Tensor = self.layer(x)
            return out

    record, found = seen(odd.on_numbers(Noisy()))
    assert record.training is not None and record.training.loss > 0
    assert found["irreproducible-training"].severity == "note"
    _, healthy = seen(regrouped.pipeline())
    assert "irreproducible-training" not in healthy


def test_a_collate_that_draws_is_not_judged() -> None:
    def masking(batch: list[Any]) -> Any:
        made = regrouped.collate(batch)
        return made | {"x": made["x"] * (torch.rand(made["x"].shape) > 0.2)}

    record, found = seen(dataclasses.replace(regrouped.pipeline(), collate=masking))
    assert not record.trials and "batch-leak" not in found
    [reason] = [i.reason for i in judged(record).not_judged if i.name == "batch-leak"]
    assert "collate draws random numbers" in reason


def test_what_raises_is_said_in_a_line() -> None:
    def raising(batch: list[Any]) -> Any:
        if len(batch) < 3:
            raise ValueError("expected three or more")
        return regrouped.collate(batch)

    record, found = seen(dataclasses.replace(regrouped.pipeline(), collate=raising))
    assert found["single-event"].evidence["failed"] is not None
    assert "tests/test_invariances.py" in found["single-event"].message
    assert found["single-event"].location is not None
    assert trial(record, "content").events

    few = record_invariances(regrouped.pipeline(), batch_size=2)
    assert [i for i in judged(few).not_judged if i.name == "batch-leak"]


def test_lost_rows_are_counted() -> None:
    record, found = seen(regrouped.pipeline("cut"))
    [rows] = [kept for kept in record.conservation if kept.kind == "rows"]
    cut = [n for n in regrouped.LENGTHS if n > 6]
    assert rows.rows == sum(regrouped.LENGTHS)
    assert rows.arrived == rows.rows - sum(n - 6 for n in cut)
    assert rows.lost_rows == tuple(cut) and set(rows.kept_rows) == {6}
    order = trial(record, "order of rows")
    assert min(order.moved_rows) > 6 >= max(order.still_rows)
    assert found["partial-order"].evidence["moves_from"] > 6
    # Sorted before they are cut.
    record, found = seen(regrouped.pipeline("brightest"))
    [sorted_rows] = [kept for kept in record.conservation if kept.kind == "rows"]
    assert sorted_rows == rows
    longest = regrouped.LENGTHS.index(max(regrouped.LENGTHS))
    assert f"event {longest} from {max(regrouped.LENGTHS)} to 6" in found["events-lost"].message
    dropped, _ = seen(regrouped.pipeline("dropping"))
    [events] = [kept for kept in dropped.conservation if kept.kind == "events"]
    assert events.lost == tuple(i for i, n in enumerate(regrouped.LENGTHS) if n <= 2)
    assert events.arrived == events.events - 2


@pytest.mark.parametrize("factory", FACTORIES)
def test_all_is_left_as_it_was(factory: Callable[[], Pipeline]) -> None:
    pipeline = factory()
    for i, module in enumerate(pipeline.model.modules()):
        module.training = i % 2 == 0
    before, drawn, dtype = snapshot(pipeline.model), generators(), torch.get_default_dtype()
    record_invariances(pipeline, seed=5)
    assert generators() == drawn
    assert snapshot(pipeline.model) == before
    assert torch.get_default_dtype() == dtype


def test_samples_are_left_as_they_were() -> None:
    class InPlace(regrouped.Attending):
        def forward(self, batch: dict[str, Tensor]) -> Tensor:
            batch["x"].mul_(2)
            return super().forward(batch)

    def alone(batch: list[Any]) -> Any:
        """Of one sample, a view of the sample itself."""
        made = regrouped.collate(batch)
        return made | ({"x": batch[0]["x"][None]} if len(batch) == 1 else {})

    made = dataclasses.replace(regrouped.pipeline(), model=InPlace(None), collate=alone)
    record_invariances(made)
    for ours, theirs in zip(made.dataset, regrouped.samples(), strict=True):
        assert torch.equal(ours["x"], theirs["x"])


def test_the_same_samples_run_once() -> None:
    pipeline = deepsets.pipeline()
    lab = Lab(pipeline, torch.device("cpu"), 0)
    samples = [pipeline.dataset[i] for i in range(4)]
    calls = []
    assert isinstance(pipeline.model, nn.Module)
    handle = pipeline.model.register_forward_hook(lambda *_: calls.append(1))
    first, again = lab.run(samples), lab.run(list(samples))
    assert len(calls) == 1 and all(first[path] is again[path] for path in first) and first
    lab.run(samples[::-1])
    lab.run(samples[:2])
    assert len(calls) == 3
    handle.remove()
