"""The recorder on pipelines of every style: what it sees, and what it says where code fails."""

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from icediag import Pipeline
from icediag.checks import judge
from icediag.errors import IcediagError
from icediag.icecube import pipeline as icecube
from icediag.instruments.recorder.record import record
from icediag.model.network import NetworkConfig
from icediag.model.table import EventTable, TableDataset
from icediag.recording import Recording, StageRecord, TensorRecord
from tests.pipelines import deepsets, graphs, images, language, odd, sequences

PIPELINES = (
    deepsets.pipeline,
    images.pipeline,
    language.pipeline,
    graphs.pipeline,
    sequences.pipeline,
)


def stage(recording: Recording, name: str) -> StageRecord:
    found = [stage for stage in recording.stages if stage.name == name]
    assert len(found) == 1, f"{name} among {[stage.name for stage in recording.stages]}"
    return found[0]


def tensor(recording: Recording, name: str, path: str = "", role: str = "out") -> TensorRecord:
    found = [t for t in stage(recording, name).tensors if (t.path, t.role) == (path, role)]
    assert len(found) == 1, f"{role} {path!r} among {stage(recording, name).tensors}"
    return found[0]


def reasons(recording: Recording) -> dict[str, str]:
    return {item.name: item.reason for item in recording.not_judged}


@pytest.mark.parametrize("factory", PIPELINES, ids=lambda factory: factory.__module__)
def test_every_style_is_recorded_whole(factory: Callable[[], Pipeline]) -> None:
    pipeline = factory()
    recording = record(pipeline)
    assert recording.not_judged == ()
    assert judge(recording).findings == ()
    assert judge(recording).not_judged == ()
    assert recording.loss is not None and math.isfinite(recording.loss)
    kinds = [stage.kind for stage in recording.stages]
    assert kinds[:2] == ["item", "collate"]
    assert kinds[-1] == "loss" or recording.stages[-1].depth == 1
    assert {name or "model" for name, _ in pipeline.model.named_modules()} - {
        # Modules that their owner does not call but reads the weights of.
        name
        for name, _ in pipeline.model.named_modules()
        if "self_attn" in name or name.endswith((".layers",))
    } <= {stage.name for stage in recording.stages}
    assert any(t.role == "grad" for s in recording.stages for t in s.tensors)
    assert all(t.facts is not None for s in recording.stages for t in s.tensors)
    assert all(part.without_gradient == 0 for part in recording.parameters)
    assert Recording.from_json(recording.to_json()) == recording


@pytest.mark.parametrize("factory", PIPELINES, ids=lambda factory: factory.__module__)
def test_shapes_without_values(factory: Callable[[], Pipeline]) -> None:
    with_values, without = record(factory()), record(factory(), values=False)
    assert [s.name for s in without.stages] == [s.name for s in with_values.stages]
    assert all(t.facts is None and t.unseen for s in without.stages for t in s.tensors)
    assert without.loss == with_values.loss
    for a, b in zip(with_values.stages, without.stages, strict=True):
        forward = [(t.path, t.shape, t.axes) for t in a.tensors if t.role != "grad"]
        assert forward == [(t.path, t.shape, t.axes) for t in b.tensors]


def test_the_same_seed_gives_the_same_recording() -> None:
    pipeline = language.pipeline()  # has dropout
    first = record(pipeline, seed=3)
    assert record(pipeline, seed=3) == first
    assert record(pipeline, seed=4).loss != first.loss


def test_deepsets_by_hand() -> None:
    recording = record(deepsets.pipeline())
    lengths = deepsets.LENGTHS
    assert recording.axes["batch"] == 8
    assert recording.axes["longest"] == 5
    item = tensor(recording, "dataset item", "0")
    assert item.shape == (3, 6) and item.varies == (True, False)
    assert item.facts is not None and item.facts.count == 6 * sum(lengths)
    clouds = tensor(recording, "collate", "0")
    assert clouds.shape == (8, 5, 6) and clouds.axes == ("batch", "longest", None)
    # Zeros are the padding: 40 places, 24 of them in use.
    assert clouds.facts is not None and clouds.facts.zeros == 6 * (40 - sum(lengths))
    assert tensor(recording, "masked_mean").axes == ("batch", None)
    [padding] = recording.padding
    assert (padding.slots, padding.used, padding.padding_is) == (40, sum(lengths), True)
    assert padding.path == "1" and padding.stage == "collate"
    by_part = {part.stage: part.parameters for part in recording.parameters}
    assert by_part == {"encode": 56, "norm": 16, "head": 9}


def test_a_size_that_coincides_with_the_batch_is_not_an_axis() -> None:
    recording = record(images.pipeline(n=8))
    assert tensor(recording, "0").shape == (8, 8, 8, 8)
    assert tensor(recording, "0").axes == ("batch", None, None, None)
    assert tensor(recording, "5").axes == ("batch", None)
    assert recording.ragged == () and recording.padding == ()


def test_masks_of_infinities_are_in_order() -> None:
    recording = record(language.pipeline())
    mask = tensor(recording, "encoder", "mask", "in")
    assert mask.facts is not None and mask.facts.negative_infs == 21
    assert mask.facts.additive_mask
    assert mask.axes == ("longest", "longest")
    absent = tensor(recording, "encoder", "src_key_padding_mask", "in")
    assert absent.facts is not None and absent.facts.negative_infs == 42 - sum(language.LENGTHS)
    [padding] = recording.padding
    assert (padding.slots, padding.used, padding.padding_is) == (42, 27, False)


def test_graphs_by_hand() -> None:
    recording = record(graphs.pipeline())
    nodes, edges = (sum(sizes) for sizes in zip(*graphs.SIZES, strict=True))
    assert tensor(recording, "collate", "x").shape == (nodes, 12)
    assert tensor(recording, "collate", "edges").shape == (2, edges)
    assert tensor(recording, "gather_sources").shape == (edges, 8)
    assert tensor(recording, "gather_sources").axes == ("n_edges_1", None)
    assert stage(recording, "gather_sources").calls == 2
    assert tensor(recording, "model").axes == ("batch",)
    [ragged] = recording.ragged
    assert (ragged.inner, ragged.outer, ragged.groups) == ("n_x", "batch", 6)
    assert ragged.quantiles["0"] == 2 and ragged.quantiles["1"] == 6
    assert ragged.mean == nodes / 6


def test_functions_and_methods_are_discovered_in_the_order_of_the_flow() -> None:
    names = [s.name for s in record(graphs.pipeline()).stages]
    assert names == [
        "dataset item",
        "collate",
        "model",
        "lift",
        "gather_sources",
        "Aggregator.total",
        "Aggregator.halve",
        "Aggregator.scaled",
        "update",
        "GraphNet.readout",
        "head",
        "loss",
    ]


def test_named_stages_are_the_only_functions() -> None:
    recording = record(graphs.pipeline(("tests.pipelines.helpers:gather_sources",)))
    assert [s.name for s in recording.stages if s.kind == "function"] == ["gather_sources"]
    place = stage(recording, "gather_sources").location
    assert place is not None and place.file == "tests/pipelines/helpers.py"
    assert place.line == graphs.gather_sources.__code__.co_firstlineno


def test_packed_sequences_named_tuples_and_streams() -> None:
    recording = record(sequences.pipeline())
    total = sum(sequences.LENGTHS)
    assert tensor(recording, "dataset item", "signal").shape == (4, 5)
    assert stage(recording, "dataset item").calls == 6
    assert tensor(recording, "collate", "packed.data").shape == (total, 5)
    assert tensor(recording, "collate", "packed.batch_sizes").shape == (7,)
    assert tensor(recording, "collate", "labels").axes == ("batch",)
    assert tensor(recording, "rnn", "0.data").shape == (total, 9)
    location = stage(recording, "dataset item").location
    assert location is not None and location.file == "tests/pipelines/sequences.py"


def test_a_module_called_twice_and_one_under_two_names() -> None:
    recording = record(odd.on_numbers(odd.Twice()))
    assert stage(recording, "step").calls == 2
    assert stage(recording, "first").calls == 2
    out = tensor(recording, "step")
    assert out.facts is not None and out.facts.count == 2 * 12
    gradient = tensor(recording, "step", role="grad")
    assert gradient.facts is not None and gradient.facts.count == 2 * 12


def test_no_parameters() -> None:
    recording = record(odd.on_numbers(odd.NoParameters()))
    assert reasons(recording)["backward"].endswith("nothing to go back through")
    assert recording.parameters == ()
    assert recording.loss is not None


def test_a_model_that_is_no_module() -> None:
    weight = torch.ones(3, requires_grad=True)
    recording = record(odd.on_numbers(lambda batch: batch * weight))
    assert recording.not_judged == ()
    assert [s.name for s in recording.stages] == ["dataset item", "collate", "loss"]
    assert tensor(recording, "loss", "predictions", "in").shape == (4, 3)


def test_a_train_of_another_meaning_is_not_called() -> None:
    model = odd.OwnTrain()
    model.layer.training = False
    recording = record(odd.on_numbers(model))
    assert recording.not_judged == ()
    assert model.trained == 0
    assert model.training and not model.layer.training


def test_a_train_of_the_same_meaning_is_obeyed() -> None:
    model = odd.FrozenNorm()
    before = model.norm.weight.requires_grad
    recording = record(odd.on_numbers(model))
    [norm] = [part for part in recording.parameters if part.stage == "norm"]
    # Frozen while it was recorded, as in training; not frozen before and after.
    assert norm.frozen == 3
    assert model.norm.weight.requires_grad is before is True
    assert model.norm.training
    out = tensor(recording, "norm").facts
    assert out is not None
    given = tensor(recording, "dataset item").facts
    assert given is not None and out.maximum == pytest.approx(given.maximum, rel=1e-4)


def test_what_was_seen_until_the_model_raised_is_kept() -> None:
    recording = record(odd.on_numbers(odd.RaisesMidway()))
    [(name, reason)] = reasons(recording).items()
    line = odd.RaisesMidway.forward.__code__.co_firstlineno + 3
    assert name == "model"
    assert reason == (f"ValueError at tests/pipelines/odd.py:{line}: no light in this batch")
    assert tensor(recording, "before").shape == (4, 5)
    assert recording.loss is None and recording.parameters == ()
    assert "after" not in [s.name for s in recording.stages]


def raising(*_: Any) -> Any:
    raise KeyError("charge")


def test_where_collate_loss_or_backward_raise() -> None:
    pipelines = {
        "collate": odd.on_numbers(nn.Linear(3, 1), collate=raising),
        "loss": odd.on_numbers(nn.Linear(3, 1), raising),
        "model": odd.on_numbers(nn.Linear(3, 1), forward=raising),
    }
    for name, pipeline in pipelines.items():
        [(where, reason)] = reasons(record(pipeline)).items()
        assert where == name
        line = raising.__code__.co_firstlineno + 1
        assert reason == f"KeyError at tests/test_record.py:{line}: 'charge'"


def test_a_data_set_that_raises() -> None:
    class Broken:
        def __len__(self) -> int:
            return 4

        def __getitem__(self, i: int) -> Tensor:
            if i == 2:
                raise OSError("unreadable")
            return torch.ones(i + 1)

    recording = record(odd.on_numbers(nn.Linear(3, 1), dataset=Broken()))
    reason = reasons(recording)["dataset item"]
    assert reason.startswith("sample 2: OSError at tests/test_record.py:")
    assert tensor(recording, "dataset item").facts is not None
    assert [s.name for s in recording.stages] == ["dataset item"]


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda p, _: p, "expected the loss to be a tensor of one value, got shape (4, 1)"),
        (lambda p, _: float(p.detach().sum()), "a tensor of one value, got float"),
        (lambda p, _: None, "a tensor of one value, got NoneType"),
    ],
)
def test_a_loss_of_another_kind(loss: Callable[[Any, Any], Any], message: str) -> None:
    assert message in reasons(record(odd.on_numbers(nn.Linear(3, 1), loss)))["loss"]


def test_a_loss_that_asks_for_no_gradient() -> None:
    recording = record(odd.on_numbers(nn.Linear(3, 1), lambda p, _: p.detach().mean()))
    assert "nothing to go back through" in reasons(recording)["backward"]
    # No gradients were taken, which is not the same as parameters that none reached.
    assert recording.parameters == ()


def test_activation_checkpointing_shows_each_stage_once() -> None:
    recording = record(odd.on_numbers(odd.Checkpointed()))
    names = [s.name for s in recording.stages]
    assert names == [
        "dataset item",
        "collate",
        "model",
        "inner",
        "inner.0",
        "inner.1",
        "head",
        "loss",
    ]
    assert all(s.calls == 1 for s in recording.stages if s.kind == "module")
    assert recording.not_judged == ()


def test_gradients_of_what_is_changed_in_place() -> None:
    recording = record(odd.on_numbers(odd.InPlace()))
    # The loss is the mean of 8 values: 1/8 by the tripled ones, 3/8 by those before.
    after = tensor(recording, "scale", role="grad").facts
    before = tensor(recording, "layer", role="grad").facts
    assert after is not None and (after.minimum, after.maximum) == (0.125, 0.125)
    assert before is not None and (before.minimum, before.maximum) == (0.375, 0.375)
    given = tensor(recording, "scale", "x", "in").facts
    given_out = tensor(recording, "scale").facts
    assert given is not None and given_out is not None
    assert given.maximum is not None and given_out.maximum == pytest.approx(3 * given.maximum)


def test_a_lazy_model_is_lazy_afterwards() -> None:
    model = odd.Lazy()
    weight = model.layer.weight
    recording = record(odd.on_numbers(model))
    assert recording.not_judged == ()
    assert tensor(recording, "layer").shape == (4, 2)
    assert (type(model.layer), type(model.norm)) == (nn.LazyLinear, nn.LazyBatchNorm1d)
    assert model.layer.weight is weight and model.layer.has_uninitialized_params()
    # And it still works: with another width than the one that was recorded.
    assert model.unused(torch.ones(2, 7)).shape == (2, 1)
    assert model(torch.ones(4, 6)).shape == (4, 2)


def test_a_model_that_takes_gradients_on_its_way() -> None:
    recording = record(odd.on_numbers(odd.Forces()))
    assert recording.not_judged == ()
    assert tensor(recording, "model").axes == ("batch", None)


def test_of_many_calls_the_first_are_looked_at() -> None:
    recording = record(odd.on_numbers(odd.ManyCalls()))
    cell = stage(recording, "cell")
    assert (cell.calls, cell.valued_calls) == (12, 8)
    for role in ("out", "grad"):
        facts = tensor(recording, "cell", role=role).facts
        assert facts is not None and facts.count == 8 * 12


def test_calls_with_tables_of_other_widths_have_no_columns() -> None:
    recording = record(odd.on_numbers(odd.OtherWidths()))
    out = tensor(recording, "same")
    assert out.columns == () and out.varies == (False, True)
    assert out.facts is not None and out.facts.count == 12 + 8


def test_one_sample_and_none() -> None:
    recording = record(odd.on_numbers(nn.Linear(3, 1), dataset=[torch.ones(3)]))
    assert "one sample" in reasons(recording)["symbolic axes"]
    assert reasons(recording)["batch size"] == "4 samples asked for, 1 in the data set"
    with pytest.raises(IcediagError, match="at least one sample in the data set, got 0"):
        record(odd.on_numbers(nn.Linear(3, 1), dataset=[]))
    with pytest.raises(IcediagError, match="batch size: expected 1 or more, got 0"):
        record(odd.on_numbers(nn.Linear(3, 1)), batch_size=0)


def test_a_one_shot_iterator_is_said_to_be_used_up() -> None:
    def stream() -> Iterator[Tensor]:
        yield from torch.ones(9, 3)

    recording = record(odd.on_numbers(nn.Linear(3, 1), dataset=stream()))
    assert "4 samples were taken" in reasons(recording)["data order"]


def test_a_small_batch_that_fails_is_told() -> None:
    class FourRows(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.reshape(4, 3).clone().requires_grad_()

    recording = record(odd.on_numbers(FourRows()))
    assert "model failed with 2 of the samples" in reasons(recording)["symbolic axes"]
    assert recording.loss is not None


def test_images_of_different_sizes_are_all_looked_at() -> None:
    images = [torch.full((3, 2 + i, 3), float(i)) for i in range(4)]

    def crop(samples: list[Tensor]) -> Tensor:
        return torch.stack([sample[:, 0] for sample in samples])

    recording = record(odd.on_numbers(nn.Linear(3, 1), dataset=images, collate=crop))
    item = tensor(recording, "dataset item")
    assert item.varies == (False, True, False)
    assert item.facts is not None and (item.facts.minimum, item.facts.maximum) == (0.0, 3.0)
    assert item.facts.count == sum(image.numel() for image in images)


def test_numpy_samples_are_not_changed_by_a_collate_that_works_in_place() -> None:
    arrays = [np.arange(3.0, dtype=np.float32) + i for i in range(4)]
    tensors = list(torch.arange(12.0).reshape(4, 3))

    def in_place(samples: list[Any]) -> Tensor:
        for sample in samples:
            sample /= 100
        return torch.stack([torch.as_tensor(sample) for sample in samples])

    for dataset in (arrays, tensors):
        before = [np.array(sample.tolist()) for sample in dataset]
        recording = record(odd.on_numbers(nn.Linear(3, 1), dataset=dataset, collate=in_place))
        out = tensor(recording, "collate").facts
        # Divided once, as in training.
        assert out is not None and out.maximum == pytest.approx(max(b.max() for b in before) / 100)
        assert all(a.tolist() == b.tolist() for a, b in zip(before, dataset, strict=True))


def test_a_batch_that_contains_itself() -> None:
    class Loop:
        def __init__(self, x: Tensor) -> None:
            self.x = x
            self.myself = self
            self.parts = [self, {"again": self}]

    recording = record(
        odd.on_numbers(
            nn.Linear(3, 1),
            collate=lambda samples: Loop(torch.stack(samples)),
            forward=lambda model, batch: model(batch.x),
        )
    )
    assert [t.path for t in stage(recording, "collate").tensors] == ["x"]


def test_no_hook_outlives_the_recording() -> None:
    model = odd.OwnParameter()
    recording = record(odd.on_numbers(model))
    assert tensor(recording, "same", role="grad").shape == (3,)
    assert not model.weight._backward_hooks
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_a_model_inside_vmap() -> None:
    pipeline = odd.on_numbers(
        nn.Sequential(nn.Linear(3, 1), nn.Tanh()),
        forward=lambda model, batch: torch.func.vmap(model)(batch),
    )
    recording = record(pipeline)
    assert recording.not_judged == ()
    assert stage(recording, "1").tensors


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_scripted_part() -> None:
    model = nn.Sequential(torch.jit.script(nn.Linear(3, 4)), nn.Linear(4, 1))
    recording = record(odd.on_numbers(model))
    assert tensor(recording, "1").shape == (4, 1)
    assert recording.loss is not None


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_model_that_is_scripted_as_a_whole_comes_through() -> None:
    recording = record(odd.on_numbers(torch.jit.script(nn.Linear(3, 1))))
    assert recording.came_through and recording.loss is not None
    assert reasons(recording)["hooks"] == "model takes none: it is scripted"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, of its own parts
def test_a_compiled_model_runs_as_it_is_written() -> None:
    compiled = torch.compile(nn.Sequential(nn.Linear(3, 1), nn.Tanh()), backend="eager")
    recording = record(odd.on_numbers(compiled))
    assert recording.not_judged == ()
    assert tensor(recording, "_orig_mod.1").shape == (4, 1)


def test_the_built_in_pipeline_by_hand() -> None:
    # Pulses 0 and 2 of the first event lie on one DOM; the second event is empty.
    table = EventTable(
        event_id=np.array([5, 6, 9]),
        first=np.array([0, 3, 3, 5]),
        sensor_id=np.array([7, 4000, 7, 12, 13], dtype=np.int16),
        time=np.array([10_000, 10_100, 10_300, 9_000, 9_001]),
        charge=np.array([1.0, 0.5, 3.0, 2.0, 0.0]),
        auxiliary=np.array([False, True, False, True, True]),
        azimuth=np.array([1.0, 2.0, 3.0]),
        zenith=np.array([0.5, 1.0, 1.5]),
    )
    config = NetworkConfig(d_model=8, n_heads=1, n_layers=1)
    built = icecube(n_events=4, batch_size=4, config=config)
    recording = record(dataclasses.replace(built, dataset=TableDataset(table), batch_size=3))
    assert {n: recording.axes[n] for n in ("pulses", "events")} == {"pulses": 5, "events": 3}
    features = tensor(recording, "collate", "pulse_features")
    assert features.column_names == ("time", "charge", "sensor_id", "auxiliary")
    time, charge, sensor, auxiliary = features.columns
    assert (time.minimum, time.median, time.maximum) == (9_000, 10_000, 10_300)
    assert time.mean == pytest.approx(9_680.2)
    assert time.std == pytest.approx(np.std(table.time))
    assert (charge.minimum, charge.maximum, charge.zeros) == (0.0, 3.0, 1)
    assert sensor.maximum == 4000
    assert auxiliary.mean == pytest.approx(0.6)
    counts = tensor(recording, "collate", "event_dom_counts").facts
    assert counts is not None and (counts.minimum, counts.maximum, counts.zeros) == (0, 2, 1)
    lengths = {(r.inner, r.outer): r for r in recording.ragged}
    assert lengths["pulses", "events"].quantiles["1"] == 3
    assert lengths["pulses", "events"].mean == pytest.approx(5 / 3)
    assert tensor(recording, "normalizer").shape == (5, 3)
    assert recording.loss is not None and math.isfinite(recording.loss)
