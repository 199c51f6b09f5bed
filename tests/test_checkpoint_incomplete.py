"""A checkpoint does not restore all of the training: runs that fire and others that stay silent."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from icediag import Pipeline
from icediag.checks import checkpoint_incomplete
from icediag.finding import Finding
from icediag.icecube import pipeline as icecube
from icediag.instruments.training_flow import record_training_flow
from icediag.model.network import NetworkConfig
from icediag.recording import Recording, Unjudged
from tests.test_training_flow import loss
from tests.test_training_flow import pipeline as made


def answer(pipeline: Pipeline) -> tuple[Finding, ...] | Unjudged:
    recording = Recording(
        pipeline="p", batch_size=1, training_flow=record_training_flow(pipeline, batch_size=16)
    )
    return checkpoint_incomplete.check(Recording.from_json(recording.to_json()))


def adam(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, 1e-3)


def save_all(path: Any, model: nn.Module, optimizer: Any) -> None:
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, path)


def load_all(path: Any, model: nn.Module, optimizer: Any) -> None:
    held = torch.load(path)
    model.load_state_dict(held["model"])
    optimizer.load_state_dict(held["optimizer"])
    model.eval()


def load_model(path: Any, model: nn.Module, _: Any) -> None:
    model.load_state_dict(torch.load(path)["model"])


def load_nothing(path: Any, *_: Any) -> None:
    torch.load(path)


def load_parameters(path: Any, model: nn.Module, optimizer: Any) -> None:
    """Not its buffers: the statistics of the batch norm."""
    held = torch.load(path)
    named = dict(model.named_parameters())
    model.load_state_dict({k: v for k, v in held["model"].items() if k in named}, strict=False)
    optimizer.load_state_dict(held["optimizer"])


def save_half(path: Any, model: nn.Module, optimizer: Any) -> None:
    half = {k: v.bfloat16() if v.is_floating_point() else v for k, v in model.state_dict().items()}
    torch.save({"model": half, "optimizer": optimizer.state_dict()}, path)


def momentum(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, 0.1, momentum=0.9)


SILENT: dict[str, dict[str, Any]] = {
    "all of it": {"save": save_all, "load": load_all, "optimizer": adam},
    "sgd has no state": {"save": save_all, "load": load_model},
    "no optimizer of its own": {"save": save_all, "load": load_all, "optimizer": None},
    "in half precision": {"save": save_half, "load": load_all, "optimizer": adam},
    "momentum": {"save": save_all, "load": load_all, "optimizer": momentum},
}
FIRING: dict[str, tuple[dict[str, Any], str, str]] = {
    "model alone": ({"load": load_model, "optimizer": adam}, "warning", "exp_avg"),
    "momentum lost": ({"load": load_model, "optimizer": momentum}, "warning", "momentum_buffer"),
    "nothing": ({"load": load_nothing, "optimizer": adam}, "error", "layers.0.weight"),
    "no buffers": ({"load": load_parameters, "optimizer": adam}, "error", "layers.1.running_mean"),
}


@pytest.mark.parametrize("name", SILENT)
def test_it_stays_silent(name: str) -> None:
    assert answer(made(**SILENT[name])) == ()


@pytest.mark.parametrize("name", FIRING)
def test_it_fires(name: str) -> None:
    parts, severity, lost = FIRING[name]
    found = answer(made(save=save_all, **parts))
    assert not isinstance(found, Unjudged)
    [finding] = found
    assert (finding.severity, finding.stage) == (severity, "checkpoint"), finding.message
    assert lost in finding.evidence["names"]
    assert finding.location is not None
    assert finding.location.file == "tests/test_checkpoint_incomplete.py"


class Loop:
    """A step with a schedule of its own."""

    def __init__(self, *, whole: bool) -> None:
        self.whole = whole
        self.scheduler: Any = None

    def optimizer(self, parameters: Any) -> Any:
        made = torch.optim.SGD(parameters, 0.1)
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(made, lambda n: 0.5**n)
        return made

    def step(self, model: Any, batch: Any, optimizer: Any) -> Tensor:
        optimizer.zero_grad()
        value = loss(model(batch), batch)
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        self.scheduler.step()
        return value

    def save(self, path: Any, model: nn.Module, optimizer: Any) -> None:
        torch.save([model.state_dict(), self.scheduler.state_dict()], path)

    def load(self, path: Any, model: nn.Module, optimizer: Any) -> None:
        held = torch.load(path)
        model.load_state_dict(held[0])
        if self.whole:
            self.scheduler.load_state_dict(held[1])
            for group, rate in zip(optimizer.param_groups, held[1]["_last_lr"], strict=True):
                group["lr"] = rate


@pytest.mark.parametrize("whole", [True, False])
def test_a_schedule_goes_on_where_it_was(whole: bool) -> None:
    loop = Loop(whole=whole)
    found = answer(
        made(optimizer=loop.optimizer, train_step=loop.step, save=loop.save, load=loop.load)
    )
    assert not isinstance(found, Unjudged)
    assert [f.severity for f in found] == ([] if whole else ["warning"]), found
    if not whole:
        assert "0.05 in place of 0.0125" in found[0].message


def test_all_is_left_as_it_was() -> None:
    pipeline = made(save=save_all, load=load_all, optimizer=adam)
    before = copy.deepcopy(pipeline.model.state_dict())
    random = torch.get_rng_state()
    answer(pipeline)
    assert torch.equal(random, torch.get_rng_state())
    for name, value in pipeline.model.state_dict().items():
        assert torch.equal(value, before[name])
    assert all(module.training for module in pipeline.model.modules())


def test_the_built_in_checkpoint() -> None:
    small = NetworkConfig(d_model=8, n_heads=1, n_layers=1)
    assert answer(icecube(n_events=16, batch_size=16, config=small)) == ()


def test_it_says_what_it_cannot_judge() -> None:
    found = answer(made())
    assert isinstance(found, Unjudged) and "no save and load" in found.reason

    def broken(*_: Any) -> None:
        raise KeyError("optimizer_state")

    found = answer(made(save=save_all, load=broken))
    assert isinstance(found, Unjudged) and "optimizer_state" in found.reason
    with pytest.raises(ValueError, match="expected both or none"):
        made(save=save_all)
