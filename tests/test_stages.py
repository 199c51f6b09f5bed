"""Functions are caught wherever they are held, and put back exactly."""

import functools
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from icediag.errors import IcediagError
from icediag.instruments.running.stages import (
    FunctionStage,
    location_of,
    relative_file,
    resolve,
    wrapped,
)
from tests.pipelines import graphs, helpers, images

HERE = "tests.pipelines.helpers"
NAMES = ("gather_sources", "Aggregator.total", "Aggregator.halve", "Aggregator.scaled")


@pytest.fixture
def seen() -> list[str]:
    return []


@pytest.fixture
def wrapper(seen: list[str]) -> Callable[[FunctionStage], Callable[..., Any]]:
    def make(stage: FunctionStage) -> Callable[..., Any]:
        def stand_in(*args: Any, **kwargs: Any) -> Any:
            seen.append(stage.name)
            return stage.function(*args, **kwargs)

        return stand_in

    return make


def state() -> list[list[tuple[str, int]]]:
    """Everything that could hold a function, by identity and in order."""
    holders = (helpers, graphs, helpers.Aggregator, helpers.SumAggregator, graphs.GraphNet)
    return [[(name, id(value)) for name, value in vars(holder).items()] for holder in holders]


def test_every_kind_of_function_is_caught_and_put_back(seen: list[str], wrapper: Any) -> None:
    pipeline = graphs.pipeline()
    batch = pipeline.collate([pipeline.dataset[i] for i in range(4)])
    expected = pipeline.model(batch)
    before, own = state(), dict(vars(pipeline.model))
    original = helpers.gather_sources
    with wrapped([resolve(f"{HERE}:{name}") for name in NAMES], wrapper, pipeline.model):
        assert torch.equal(pipeline.model(batch), expected)
        assert graphs.gather_sources.__name__ == "gather_sources"
        assert graphs.gather_sources is helpers.gather_sources is not original
    # `gather_sources` was imported by name and kept in an attribute; the others are inherited.
    assert seen == [NAMES[0], NAMES[1], NAMES[2], NAMES[3]] * 2
    assert state() == before
    assert vars(pipeline.model) == own
    seen.clear()
    pipeline.model(batch)
    assert seen == []


def test_put_back_after_an_exception(wrapper: Any) -> None:
    model = graphs.pipeline().model
    before = state()
    changed = []

    def stop() -> None:
        with wrapped([resolve(f"{HERE}:{name}") for name in NAMES], wrapper, model):
            changed.append(state() != before)
            raise KeyError("stop")

    with pytest.raises(KeyError, match="stop"):
        stop()
    assert changed == [True]
    assert state() == before
    assert model.gather is helpers.gather_sources


def test_put_back_where_wrapping_itself_fails() -> None:
    before = state()

    def broken(stage: FunctionStage) -> Callable[..., Any]:
        if stage.name == NAMES[2]:
            raise ValueError("no wrapper")
        return lambda: None

    stages = [resolve(f"{HERE}:{name}") for name in NAMES]
    with pytest.raises(ValueError, match="no wrapper"), wrapped(stages, broken):
        pass
    assert state() == before


def test_a_function_in_a_helper_object(seen: list[str], wrapper: Any) -> None:
    class Holder:
        def __init__(self) -> None:
            self.function = helpers.gather_sources

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Module()
            self.inner.holder = Holder()  # type: ignore[assignment]

    model = Net()
    holder: Any = model.inner.holder
    with wrapped([resolve(f"{HERE}:gather_sources")], wrapper, model):
        holder.function(torch.ones(3, 1), torch.zeros(2, 1, dtype=torch.long))
    assert seen == ["gather_sources"]
    assert holder.function is helpers.gather_sources


def test_inherited_methods_are_wrapped_where_they_are_defined(wrapper: Any) -> None:
    stage = resolve(f"{HERE}:SumAggregator.total")
    assert stage.owner is helpers.Aggregator
    with wrapped([stage], wrapper):
        assert "total" not in vars(helpers.SumAggregator)
    assert "total" not in vars(helpers.SumAggregator)


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ("no_such_package.at_all:f", "cannot import 'no_such_package.at_all'"),
        (f"{HERE}:nothing", "expected a function or method at .* got nothing"),
        (f"{HERE}:Aggregator.nothing", "got nothing"),
        (f"{HERE}:nothing.at.all", "got nothing"),
        (f"{HERE}:Aggregator.scale", "got float"),
        (f"{HERE}:Aggregator", "got type"),
    ],
)
def test_a_name_that_cannot_be_wrapped(stage: str, message: str) -> None:
    with pytest.raises(IcediagError, match=message) as caught:
        resolve(stage)
    assert "\n" not in str(caught.value)


def test_a_module_that_raises_when_it_is_imported(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_stage_module.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(IcediagError, match="ZeroDivisionError"):
        resolve("broken_stage_module:f")
    assert "broken_stage_module" not in sys.modules


def collate(samples: list[Tensor]) -> Tensor:
    return torch.stack(samples)


class Called:
    def __call__(self) -> None: ...


def line_of(function: Any) -> int:
    return int(function.__code__.co_firstlineno)


def test_places_in_the_source() -> None:
    @functools.wraps(collate)
    def around(samples: list[Tensor]) -> Tensor:
        return collate(samples)

    for thing, function in (
        (collate, collate),
        (around, collate),
        (functools.partial(collate), collate),
        (Called(), Called.__call__),
        (Called().__call__, Called.__call__),
    ):
        place = location_of(thing)
        assert place is not None
        assert (place.file, place.line) == ("tests/test_stages.py", line_of(function))
    net = location_of(graphs.pipeline().model)
    assert net is not None
    assert (net.file, net.line) == (
        "tests/pipelines/graphs.py",
        line_of(graphs.GraphNet.forward),
    )
    others: list[Any] = [len, 3, None, torch.add]
    assert [location_of(other) for other in others] == [None] * 4


def test_files_are_relative_to_the_top_package() -> None:
    assert relative_file("/a/b/pkg/sub/mod.py", "pkg.sub.mod") == "pkg/sub/mod.py"
    assert relative_file("/a/b/pkg/sub/__init__.py", "pkg.sub") == "pkg/sub/__init__.py"
    assert relative_file("/a/b/script.py", "__main__") == "script.py"
    assert relative_file("/a/b/script.py", None) == "script.py"
    assert relative_file("mod.py", "pkg.sub.mod") == "mod.py"


def test_a_module_that_got_another_name_since_is_looked_at_again(
    seen: list[str], wrapper: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = [resolve(f"{HERE}:gather_sources")]
    with wrapped(stages, wrapper):
        pass
    monkeypatch.setattr(images, "later", helpers.gather_sources, raising=False)
    original = helpers.gather_sources
    with wrapped(stages, wrapper):
        assert vars(images)["later"] is helpers.gather_sources is not original
    assert vars(images)["later"] is original
