"""Everything is left as it was found, bit for bit, also after an exception."""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from icediag import Pipeline
from icediag.instruments.recorder.record import record
from icediag.instruments.running.preserve import preserved, unchanged
from tests.pipelines import deepsets, graphs, images, language, odd, sequences


def snapshot(model: nn.Module) -> dict[str, Any]:
    """All that can be told of a model: values by bits, everything else by identity."""
    state: dict[str, Any] = {"class": [type(m) for m in model.modules()]}
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        lazy = isinstance(tensor, nn.parameter.UninitializedParameter | nn.UninitializedBuffer)
        bits = None if lazy else tensor.detach().numpy().tobytes()
        state[name] = (id(tensor), type(tensor), tensor.requires_grad, bits)
        if not lazy:
            gradient = tensor.grad
            grad_bits = None if gradient is None else gradient.numpy().tobytes()
            state[f"{name}.grad"] = (id(gradient), grad_bits)
    for name, module in model.named_modules():
        held = {key: id(value) for key, value in vars(module).items() if key != "training"}
        state[f"{name}()"] = (module.training, held)
        state[f"{name}[]"] = {
            key: [id(v) for v in (value.values() if isinstance(value, dict) else value)]
            for key, value in vars(module).items()
            if isinstance(value, dict | list)
        }
    return state


def generators() -> tuple[Any, ...]:
    state: Any = np.random.get_state()  # noqa: NPY002 - what users draw from
    name, keys, *rest = state
    return random.getstate(), (name, keys.tobytes(), *rest), torch.get_rng_state().numpy().tobytes()


FACTORIES: tuple[Callable[[], Pipeline], ...] = (
    deepsets.pipeline,
    images.pipeline,
    language.pipeline,
    graphs.pipeline,
    sequences.pipeline,
    lambda: odd.on_numbers(odd.OwnTrain()),
    lambda: odd.on_numbers(odd.FrozenNorm()),
    lambda: odd.on_numbers(odd.Stateful()),
    lambda: odd.on_numbers(odd.InPlace()),
    lambda: odd.on_numbers(odd.Lazy()),
    lambda: odd.on_numbers(odd.Checkpointed()),
    lambda: odd.on_numbers(odd.RaisesMidway()),
    lambda: odd.on_numbers(odd.OwnParameter()),
)


@pytest.mark.parametrize("factory", FACTORIES)
def test_a_recording_leaves_all_as_it_was(factory: Callable[[], Pipeline]) -> None:
    pipeline = factory()
    modules = list(pipeline.model.modules())
    for i, module in enumerate(modules):
        module.training = i % 2 == 0
    for parameter in pipeline.model.parameters():
        if not isinstance(parameter, nn.parameter.UninitializedParameter):
            parameter.grad = torch.full_like(parameter, 0.5)
            break
    before, drawn = snapshot(pipeline.model), generators()
    versions = [p._version for p in pipeline.model.parameters()]
    recording = record(pipeline, seed=5)
    assert len(recording.stages) > 2
    assert generators() == drawn
    assert snapshot(pipeline.model) == before
    # Not even written to with what it held.
    if not isinstance(pipeline.model, odd.Lazy):
        assert [p._version for p in pipeline.model.parameters()] == versions


def draw() -> None:
    random.random()
    np.random.random()  # noqa: NPY002 - as users do
    torch.rand(3)


def test_after_an_exception() -> None:
    linear = nn.Linear(2, 2)
    model = nn.Sequential(linear, nn.BatchNorm1d(2))
    before, drawn = snapshot(model), generators()
    within: list[Any] = []

    def fail() -> None:
        with preserved(model):
            draw()
            model(torch.randn(4, 2)).sum().backward()
            with torch.no_grad():
                linear.weight.mul_(3)
            linear.requires_grad_(False)
            model.eval()
            within.extend([snapshot(model), generators()])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert before not in within and drawn not in within
    assert snapshot(model) == before
    assert generators() == drawn


def test_gradients_are_put_aside() -> None:
    model = nn.Linear(2, 1)
    gradient = model.weight.grad = torch.ones(1, 2)
    within: list[Any] = []
    with preserved(model):
        within.append(model.weight.grad)
        model(torch.ones(1, 2)).sum().backward()
    assert within == [None]
    assert model.weight.grad is gradient
    assert gradient.tolist() == [[1.0, 1.0]]
    assert model.bias.grad is None


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.0])
def test_values_that_are_hard_to_compare(value: float) -> None:
    model = nn.BatchNorm1d(1)
    assert model.running_mean is not None
    model.running_mean.fill_(value)
    before = snapshot(model)
    with preserved(model):
        model.running_mean.fill_(0.0)
    assert snapshot(model) == before


def test_what_a_model_keeps_in_attributes() -> None:
    model = odd.Stateful()
    kept = model.history
    kept.append(1.5)
    buffer = model.running
    record(odd.on_numbers(model))
    assert model.calls == 0
    assert model.history is kept and kept == [1.5]
    assert model.running is buffer
    assert not hasattr(model, "last")
    model(torch.ones(1, 3))
    assert (model.calls, len(model.history)) == (1, 2)


def test_of_what_is_no_module_the_generators_are_restored() -> None:
    drawn = generators()
    with preserved(lambda batch: batch):
        draw()
    assert generators() == drawn


def test_samples_are_restored_where_they_were_changed() -> None:
    base = torch.arange(6.0)
    samples = [
        {"x": base[:2], "y": np.arange(3)},
        {"x": base[2:5], "y": np.arange(3.0)},
        {"x": base[5:], "y": "text"},
    ]
    read_only = np.arange(2)
    read_only.flags.writeable = False
    untouched = torch.ones(2)

    def change() -> None:
        with unchanged([samples, read_only, untouched]):
            base.mul_(2)
            y: Any = samples[0]["y"]
            y += 1
            assert isinstance(samples[0]["x"], Tensor)
            assert samples[0]["x"].tolist() == [0.0, 2.0]
            raise KeyError

    with pytest.raises(KeyError):
        change()
    assert base.tolist() == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    y = samples[0]["y"]
    assert isinstance(y, np.ndarray) and y.tolist() == [0, 1, 2]
    assert untouched._version == 0
