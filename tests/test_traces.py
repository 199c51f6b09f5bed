"""Traces: TensorBoard's plugin and Perfetto find our stages, and nothing is left changed."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from icediag.errors import IcediagError
from icediag.instruments.profiling.traces import Ranges, record_trace
from tests import clockwork
from tests.pipelines import deepsets, odd


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = deepsets.pipeline()
    path, n = record_trace(made, tmp_path_factory.mktemp("trace"), steps=2)
    assert n == len(made.dataset)
    return path


def test_the_events_are_those_of_a_chrome_trace(written: Path) -> None:
    with gzip.open(written, "rt", encoding="utf-8") as stream:
        trace = json.load(stream)
    events = {event["name"]: event for event in trace["traceEvents"] if event.get("ph") == "X"}
    stages = {"dataset item", "collate", "model", "loss", "backward"}
    assert stages <= set(events)
    assert all(events[name]["dur"] > 0 for name in stages)
    assert "ProfilerStep#1" in events and "ProfilerStep#2" in events
    assert not any(str(written.parent) in str(value) for value in trace.values())


def test_the_plugin_of_tensorboard_finds_our_stages(written: Path) -> None:
    data = pytest.importorskip("torch_tb_profiler.profiler.data")
    generator = pytest.importorskip("torch_tb_profiler.profiler.run_generator")
    loaded = data.RunProfileData.parse("icediag", 1, str(written), str(written.parent))
    assert loaded.steps_names == ["1", "2"]
    operators = {op.name: op for op in loaded.op_list_groupby_name}
    for name in ("dataset item", "collate", "model", "loss", "backward"):
        assert operators[name].calls == 2 and operators[name].host_duration > 0
    assert operators["model"].self_host_duration < operators["model"].host_duration
    views = generator.RunGenerator("icediag", 1, loaded).generate_run_profile().views
    assert {"overall", "operator", "trace"} <= {view.name for view in views}


def test_a_plugin_looks_for_such_names(written: Path) -> None:
    consts = pytest.importorskip("torch_tb_profiler.consts")
    match = consts.WORKER_PATTERN.match(written.name)
    assert match is not None and match.group(1) == "icediag"


def test_stages_are_nvtx_ranges_on_cuda() -> None:
    calls: list[str] = []
    ranges = Ranges(calls.append, lambda: calls.append("pop"))
    ranges.begin(("model",))
    ranges.begin(("model", "head"))
    ranges.end(("model", "head"))
    ranges.end(("model",))
    assert calls == ["model", "head", "pop", "pop"]
    assert ranges.names == {"model", "head"}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_kernels_are_in_the_trace(tmp_path: Path) -> None:
    made = deepsets.pipeline()
    made.model.to("cuda")
    path, _ = record_trace(made, tmp_path, device="cuda")
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        trace = json.load(stream)
    assert any(event.get("cat") == "kernel" for event in trace["traceEvents"])


def test_everything_is_left_as_it_was(tmp_path: Path) -> None:
    made: Any = clockwork.pipeline(4)
    before = [parameter.detach().clone() for parameter in made.model.parameters()]
    state, step = torch.get_rng_state(), torch.autograd.backward
    record_trace(made, tmp_path)
    assert all(map(torch.equal, before, made.model.parameters()))
    assert torch.equal(state, torch.get_rng_state()) and torch.autograd.backward is step
    assert all(parameter.grad is None for parameter in made.model.parameters())


def test_what_fails_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(IcediagError, match="^--trace: "):
        record_trace(odd.on_numbers(odd.RaisesMidway()), tmp_path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(IcediagError, match="^--trace: .*nowhere"):
        record_trace(deepsets.pipeline(), tmp_path / "nowhere")
