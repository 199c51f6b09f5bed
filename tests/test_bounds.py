"""The bounds instrument: what it records, of which columns, and that it leaves all as it was."""

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest
import torch
from annotated_types import Ge, Gt, Interval, Le, Unit
from torch import Tensor, nn

from icediag.errors import IcediagError
from icediag.icecube import pipeline as icecube
from icediag.instruments.bounds import record_bounds
from icediag.instruments.bounds.places import line_of_user
from icediag.instruments.bounds.propagate import Propagation
from icediag.instruments.bounds.watch import limits_of
from icediag.instruments.trees.outputs import output_columns, target_column
from icediag.model.network import NetworkConfig
from icediag.pipeline import Pipeline
from icediag.recording import Recording
from icediag.records.bounds import BoundsRecord

SMALL = NetworkConfig(d_model=16, n_heads=2, n_layers=1, octaves=2)


@dataclass
class Prediction:
    azimuth: Tensor
    zenith: Tensor


def test_columns_of_a_table_go_by_order() -> None:
    table = torch.arange(6.0).view(3, 2)
    columns, missing = output_columns(table, ["azimuth", "zenith"])
    assert not missing
    assert torch.equal(columns["azimuth"], table[:, 0])
    assert torch.equal(columns["zenith"], table[:, 1])
    alone, _ = output_columns({"logits": table}, ["p"])
    assert alone["p"] is table


def test_columns_of_a_tree_go_by_name() -> None:
    angles = Prediction(torch.ones(3), torch.zeros(3))
    tree = {"angles": angles, "n": torch.ones(3).long()}
    columns, missing = output_columns(tree, ["zenith", "angles.azimuth"])
    assert not missing
    assert columns["zenith"] is angles.zenith
    assert columns["angles.azimuth"] is angles.azimuth


@pytest.mark.parametrize(
    ("predictions", "names", "reason"),
    [
        (
            torch.ones(3, 3),
            ["a", "b"],
            "expected 2 columns (a, b), got predictions of shape (3, 3)",
        ),
        (torch.ones(3), ["a", "b"], "expected 2 columns"),
        (torch.ones(3).long(), ["a"], "expected floating-point predictions, got none in Tensor"),
        (None, ["a"], "expected floating-point predictions, got none in NoneType"),
        ({"x": torch.ones(3), "y": torch.ones(3)}, ["a"], "none of that name"),
        (
            {"p": {"a": torch.ones(3)}, "q": {"a": torch.ones(3)}, "b": torch.ones(3)},
            ["a"],
            "2 of that name",
        ),
    ],
)
def test_columns_that_cannot_be_found(predictions: Any, names: list[str], reason: str) -> None:
    columns, missing = output_columns(predictions, names)
    assert not columns
    assert [note.name for note in missing] == names
    assert all(reason in note.reason for note in missing)


def test_no_outputs_no_columns() -> None:
    assert output_columns(torch.ones(3), []) == ({}, ())


def test_targets_are_found_by_name_or_not_at_all() -> None:
    table = torch.rand(3, 2)
    names = ["azimuth", "zenith"]
    found = target_column({"targets": table, "x": torch.rand(3, 2)}, "zenith", names, 3)
    assert found is not None and torch.equal(found, table[:, 1])
    found = target_column((torch.rand(3, 5), table), "azimuth", names, 3)
    assert found is not None and torch.equal(found, table[:, 0])
    found = target_column({"azimuth": table[:, 0]}, "azimuth", names, 3)
    assert found is not None and torch.equal(found, table[:, 0])
    assert target_column({"features": table}, "azimuth", names, 3) is None
    assert target_column({"targets": table.long()}, "azimuth", names, 3) is None


@pytest.mark.parametrize(
    ("annotation", "low", "high"),
    [
        (Annotated[Tensor, Unit("ns"), Ge(0)], 0, None),
        (Annotated[Tensor, Le(2.5)], None, 2.5),
        (Annotated[Tensor, Interval(ge=1, le=2)], 1, 2),
        (Annotated[Tensor, Gt(0)], None, None),
        (Annotated[Tensor, Ge(1)] | None, 1, None),
        (Tensor, None, None),
        ((Ge(0), Le(1)), 0, 1),
        (None, None, None),
    ],
)
def test_limits_of_annotations(annotation: Any, low: float | None, high: float | None) -> None:
    assert limits_of(annotation) == (low, high)


def test_the_record_of_the_default_model() -> None:
    record = record_bounds(icecube(n_events=8, config=SMALL), batch_size=4)
    assert record.batch_size == 4
    ends = {(stage.stage, stage.path): (stage.low, stage.high) for stage in record.stages}
    assert ends["normalizer", ""] == (-math.inf, math.inf)
    assert list(ends["head", "azimuth"]) == pytest.approx([0, 2 * math.pi])
    low, high = ends["transformer.norm", ""]
    assert high == pytest.approx(math.sqrt(15), rel=1e-4) and low == -high
    assert all(stage.proved for stage in record.stages)
    assert [(o.last.kind, o.last.place.op) for o in record.outputs if o.last] == [
        ("periodic", "aten::atan2"),
        ("periodic", "aten::atan2"),
    ]
    charge = next(r for r in record.ranges if r.path == "pulse_features[..., 1]")
    assert (charge.low, charge.source) == (0, "declared")
    assert not any("targets" in r.path for r in record.ranges)


def test_a_recording_keeps_it() -> None:
    bounds = record_bounds(icecube(n_events=4, config=SMALL, faults=("unbounded-output",)))
    recording = Recording(pipeline="p", batch_size=4, bounds=bounds)
    read = Recording.from_json(recording.to_json())
    assert read.bounds == bounds
    assert isinstance(read.bounds, BoundsRecord)
    assert Recording.from_json(Recording(pipeline="p", batch_size=1).to_json()).bounds is None


def test_everything_is_left_as_it_was() -> None:
    pipeline = icecube(n_events=4, batch_size=4, config=SMALL, faults=("unbounded-output",))
    model = pipeline.model
    model.train()
    model.transformer.eval()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    before = [pipeline.dataset[i].pulse_features.clone() for i in range(4)]
    random = torch.get_rng_state()
    fast = torch.backends.mha.get_fastpath_enabled()
    first = record_bounds(pipeline)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert all(torch.equal(pipeline.dataset[i].pulse_features, before[i]) for i in range(4))
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.backends.mha.get_fastpath_enabled() == fast
    assert not any(module._forward_hooks for module in model.modules())
    assert record_bounds(pipeline) == first


def test_batch_size_is_checked() -> None:
    with pytest.raises(IcediagError, match="batch size: expected 1 or more, got 0"):
        record_bounds(icecube(n_events=4, config=SMALL), batch_size=0)


def test_a_loss_that_fails_leaves_the_proofs() -> None:
    def fails(predictions: Any, batch: Any) -> Tensor:
        raise ValueError("no loss today")

    pipeline: Pipeline = dataclasses.replace(icecube(n_events=4, config=SMALL), loss=fails)
    record = record_bounds(pipeline)
    assert all(output.proved for output in record.outputs)
    (note,) = record.not_judged
    assert note.name == "poles" and "no loss today" in note.reason


def test_shadows_do_not_outlive_their_storages() -> None:
    propagation = Propagation()
    x = torch.ones(8)
    propagation.free(x)
    with propagation.running():
        for _ in range(1000):
            x = x.tanh()
    assert len(propagation.shadows._of) < 200


def test_views_share_what_is_known() -> None:
    propagation = Propagation()
    x = torch.zeros(2, 3)
    propagation.bound(x, torch.tensor(-1.0), torch.tensor(1.0))
    with propagation.running():
        y = torch.zeros(4, 3)
        y[1:3] = x
        z = y.view(-1)[3:6].mul_(2)
    found = propagation.shadows.interval(y)
    assert found.hi[:, 0].tolist() == [0, 2, 1, 0]
    assert propagation.shadows.interval(z).lo.tolist() == [-2, -2, -2]


def test_constant_modules_stay_constant() -> None:
    propagation = Propagation()
    layer = nn.Linear(3, 2)
    with propagation.running():
        out = layer(torch.ones(1, 3))
    assert propagation.shadows.of(out) is None


def test_code_that_a_library_writes_is_not_the_users_own(tmp_path: Path) -> None:
    source = "def call(function):\n    return function()\n"
    for module, ours in (("numpy.written_ab12", False), ("written_ab12", True)):
        made: dict[str, Any] = {"__name__": module}
        exec(compile(source, str(tmp_path / "written_ab12.py"), "exec"), made)
        place = made["call"](line_of_user)
        assert place is not None
        assert place[0].endswith("written_ab12.py" if ours else "test_bounds.py")
