"""Checkpoints: resumed bit for bit, whole or not at all, and refused where they do not fit."""

import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from icediag.model.errors import DataError
from icediag.model.training.checkpoint import load_network, read_checkpoint
from icediag.model.training.loop import Interrupted
from icediag.model.training.progress import Scored, Stepped, TrainEvent
from tests.small_training import SmallDataset, metric_lines, run, small_network


def same(first: Any, second: Any) -> bool:
    """Equal to the last bit, through dictionaries, lists and tensors."""
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[k], second[k]) for k in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    return bool(first == second)


def stop_at(step: int) -> Any:
    """A listener that does as Ctrl-C does, when the step is done."""

    def listen(event: TrainEvent) -> None:
        if isinstance(event, Stepped) and event.step == step:
            signal.raise_signal(signal.SIGINT)

    return listen


@pytest.fixture(autouse=True)
def _python_handles_ctrl_c() -> Any:
    # A test run in the background may have been started with SIGINT ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


# Of 8 steps, 4 an epoch: within an epoch, at a line of metrics and between two, at an end.
@pytest.mark.parametrize("stops", [[1], [2], [3], [4], [5, 6, 7], [8]])
def test_resumes_bit_for_bit(tmp_path: Path, stops: list[int]) -> None:
    straight, network = run(tmp_path / "straight")
    for number, step in enumerate(stops):
        with pytest.raises(Interrupted) as caught:
            run(tmp_path / "parts", on_event=stop_at(step), resume=number > 0)
        assert caught.value.summary.step == step
        assert caught.value.signal == signal.SIGINT
    # Weights drawn with another seed: those of the checkpoint must replace them.
    parts, again = run(tmp_path / "parts", resume=True, network=small_network(seed=9))
    assert all(map(torch.equal, network.parameters(), again.parameters()))
    assert metric_lines(straight.metrics) == metric_lines(parts.metrics)
    for name in ("last.pt", "best.pt"):
        one, two = (read_checkpoint(tmp_path / where / name) for where in ("straight", "parts"))
        for part in vars(one):
            assert same(getattr(one, part), getattr(two, part)), (name, part)
    assert (straight.best_mean, straight.best_step) == (parts.best_mean, parts.best_step)


def test_interrupted_while_it_scores(tmp_path: Path) -> None:
    straight, network = run(tmp_path / "straight", score_every=1)

    class Stopping(SmallDataset):
        def __getitems__(self, indices: list[int], /) -> Any:
            if 16 in indices:  # the first that is held out
                signal.raise_signal(signal.SIGINT)
            return super().__getitems__(indices)

    with pytest.raises(Interrupted):
        run(tmp_path / "parts", dataset=Stopping(22))
    assert "validation" not in {x["kind"] for x in metric_lines(tmp_path / "parts/metrics.jsonl")}
    parts, again = run(tmp_path / "parts", resume=True)
    assert metric_lines(straight.metrics) == metric_lines(parts.metrics)
    assert all(map(torch.equal, network.parameters(), again.parameters()))


def test_a_killed_run_resumes_from_the_last_checkpoint(tmp_path: Path) -> None:
    straight, network = run(tmp_path / "straight", save_every=3)

    def die(event: TrainEvent) -> None:
        if isinstance(event, Stepped) and event.step == 7:
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        run(tmp_path / "parts", save_every=3, on_event=die)
    assert read_checkpoint(tmp_path / "parts/last.pt").progress["step"] == 6
    parts, again = run(tmp_path / "parts", save_every=3, resume=True)
    assert metric_lines(straight.metrics) == metric_lines(parts.metrics)
    assert all(map(torch.equal, network.parameters(), again.parameters()))


def test_a_finished_run_can_be_extended(tmp_path: Path) -> None:
    first, _ = run(tmp_path, epochs=1)
    same_again, _ = run(tmp_path, epochs=1, resume=True)
    assert same_again.step == first.step == 4
    assert same_again.mean == first.mean
    longer, _ = run(tmp_path, epochs=3, resume=True)
    assert longer.step == 12
    with pytest.raises(DataError, match="at most 8 steps"):
        run(tmp_path, epochs=2, resume=True)


def test_loads_with_weights_only_and_has_all(tmp_path: Path) -> None:
    run(tmp_path)
    content = torch.load(tmp_path / "last.pt", weights_only=True)
    assert content["format"] == "icediag checkpoint"
    assert content["version"] == 1
    assert content["network_config"]["d_model"] == 16
    assert content["network_config"]["normalizer"], "nested configuration comes along"
    assert content["progress"]["step"] == 8
    assert {"torch", "cuda", "python", "numpy"} == set(content["rng"])


def test_best_is_the_best(tmp_path: Path) -> None:
    scores: list[Scored] = []
    summary, _ = run(
        tmp_path,
        epochs=6,
        lr=0.1,
        on_event=lambda event: scores.append(event) if isinstance(event, Scored) else None,
    )
    best = min(scores, key=lambda scored: scored.mean)
    assert [s.best for s in scores] == [
        s.mean == min(t.mean for t in scores[: i + 1]) for i, s in enumerate(scores)
    ]
    assert summary.best_mean == best.mean
    assert read_checkpoint(tmp_path / "best.pt").progress["step"] == best.step


def test_a_failure_in_the_middle_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path, epochs=1)
    before = (tmp_path / "last.pt").read_bytes()

    def fail(self: Path, target: Path) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(DataError, match=r"last\.pt: cannot be written"):
        run(tmp_path, epochs=2, save_every=1, resume=True)
    assert (tmp_path / "last.pt").read_bytes() == before
    assert not list(tmp_path.glob(".*.part"))


@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "foreign", "folder", "absent"])
def test_bad_files_are_refused_in_one_line(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "last.pt"
    if damage == "truncated":
        run(tmp_path, epochs=1)
        path.write_bytes(path.read_bytes()[:-500])
    elif damage == "foreign":
        torch.save({"model": {}}, path)
    elif damage == "folder":
        path.mkdir()
    elif damage != "absent":
        path.write_bytes(b"" if damage == "empty" else b"not a checkpoint\n" * 9)
    with pytest.raises(DataError) as caught:
        read_checkpoint(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_incomplete_content_is_refused(tmp_path: Path) -> None:
    run(tmp_path, epochs=1)
    path = tmp_path / "last.pt"
    content = torch.load(path, weights_only=True)
    torch.save({**content, "version": 99}, path)
    with pytest.raises(DataError, match="version 1, got 99"):
        read_checkpoint(path)
    torch.save({k: v for k, v in content.items() if k != "rng"}, path)
    with pytest.raises(DataError, match="lacks rng"):
        read_checkpoint(path)
    torch.save({**content, "progress": {"step": 1}}, path)
    with pytest.raises(DataError, match="progress is not complete"):
        run(tmp_path, epochs=1, resume=True)
    torch.save({**content, "optimizer": {"state": {}, "param_groups": []}}, path)
    with pytest.raises(DataError, match="optimizer's state does not fit"):
        run(tmp_path, epochs=1, resume=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"network": small_network(d_model=32)}, "d_model is 16 in the checkpoint and 32 now"),
        ({"network": small_network(head="angles")}, "head is unit_vector in the checkpoint"),
        ({"batch_size": 4}, "batch_size is 5 in the checkpoint and 4 now"),
        ({"seed": 1}, "seed is 0 in the checkpoint and 1 now"),
        ({"n_events": 23}, "training events is 16 .* in the checkpoint and 17"),
        ({"about": {"loss": "vmf"}}, "loss is angular in the checkpoint and vmf now"),
        ({"about": None}, "loss is angular in the checkpoint and absent now"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    run(tmp_path, epochs=1, about={"loss": "angular"})
    with pytest.raises(DataError, match=message):
        run(tmp_path, resume=True, **{"about": {"loss": "angular"}, **change})


def test_shapes_that_do_not_fit_are_named(tmp_path: Path) -> None:
    run(tmp_path, epochs=1)
    checkpoint = read_checkpoint(tmp_path / "last.pt")
    other = small_network()
    other.head.to_vector = nn.Linear(16, 4)
    before = [p.detach().clone() for p in other.parameters()]
    with pytest.raises(DataError, match=r"head.to_vector.weight has shape \(3, 16\) .* \(4, 16\)"):
        load_network(tmp_path / "last.pt", checkpoint, other)
    assert all(map(torch.equal, before, other.parameters()))


def test_backend_may_differ(tmp_path: Path) -> None:
    run(tmp_path, epochs=1)
    load_network(
        tmp_path / "last.pt", read_checkpoint(tmp_path / "last.pt"), small_network(backend="native")
    )
