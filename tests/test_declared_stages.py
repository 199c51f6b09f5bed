"""Every stage of `model/` says what shapes and types it takes and gives, also with its faults."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from icediag.icecube import pipeline
from icediag.instruments.contracts.declared import Declared, declared_in
from icediag.instruments.contracts.terms import terms_of
from icediag.instruments.recorder.flow import Flow, SeenStage
from icediag.instruments.recorder.record import follow
from icediag.instruments.trees.walk import leaves
from icediag.model.faults import FAULTS
from icediag.model.network import NetworkConfig
from icediag.pipeline import Pipeline
from icediag.recording import Role

#: The parts of the network that faults replace are stages too.
FAULTY = tuple(fault.name for fault in FAULTS)


class Undeclared(Flow):
    """A flow that keeps what no signature, and no field of a container, says the shape of."""

    def __init__(self) -> None:
        super().__init__(None)
        self.told: set[tuple[str, Role, str]] = set()
        self.missing: set[tuple[str, Role, str]] = set()

    def compare(
        self, stage: SeenStage, role: Role, path: str, tensor: Tensor, declared: Declared | None
    ) -> None:
        """Sort a tensor of one of our own stages."""
        ours = stage.location is not None and stage.location.file.startswith("icediag/model/")
        if not ours or stage.kind == "item" or role == "grad":
            return
        ways = terms_of(declared.annotation) if declared is not None else ()
        full = any(way.dims is not None and way.array is not None for way in ways)
        (self.told if full else self.missing).add((stage.owner, role, path))

    def note_batch(self, stage: SeenStage, name: str, batch: Any, annotation: Any) -> None:
        """The same of the batch's own tensors."""
        declared = declared_in(batch, annotation, name)
        for path, tensor in leaves(batch, name):
            self.compare(stage, "in", path, tensor, declared.get(path))


def taking(flow: Undeclared) -> set[str]:
    """Stages of which an argument was seen."""
    return {owner for owner, role, _ in flow.told if role == "in"}


def walked(built: Pipeline) -> Undeclared:
    flow = Undeclared()
    follow(built, flow, batch_size=4, device="cpu", seed=0)
    return flow


@pytest.mark.parametrize("faults", [(), FAULTY], ids=["as it is", "all faults"])
@pytest.mark.parametrize("head", ["unit_vector", "bounded_angles", "angles"])
def test_each_stage_declares_each_tensor(head: Any, faults: tuple[str, ...]) -> None:
    config = NetworkConfig(d_model=16, n_heads=2, n_layers=2, head=head, backend="native")
    built = pipeline(n_events=4, config=config, faults=faults)
    flow = walked(built)
    assert flow.missing == set()
    owners = {owner for owner, _, _ in flow.told}
    # None was passed over: every module of our own, every function that is a stage, the loss.
    assert isinstance(built.model, nn.Module)
    for module in built.model.modules():
        kind = type(module)
        if kind.__module__.startswith("icediag.model"):
            assert f"{kind.__module__}:{kind.__qualname__}" in owners
    assert set(built.stages) <= owners
    assert {"icediag.model.collate:collate", "icediag.model.losses:mean_angular_error"} <= owners
    # What is taken and given alike; collate takes samples, which are no tensors.
    assert owners == {owner for owner, role, _ in flow.told if role == "out"}
    assert owners - taking(flow) == {"icediag.model.collate:collate"}


def test_what_is_not_declared_is_seen() -> None:
    class Bare(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x

    flow = Undeclared()
    stage = flow.begin("bare", "module", Bare())
    assert stage.location is not None
    stage.location = type(stage.location)(file="icediag/model/bare.py", line=1)
    flow.note(stage, "in", torch.ones(2), "x", Tensor)
    assert {path for _, _, path in flow.missing} == {"x"} and not flow.told
