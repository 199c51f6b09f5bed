"""Optimizers step without torch's compiler while a pipeline is looked at, and as before after."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from icediag.instruments.running import uncompiled

#: In a process of its own: here others may have imported the compiler.
APART = """
import sys, torch
from icediag.instruments.running.containment import contained
model = torch.nn.Linear(3, 1)
def train(kind):
    optimizer = kind(model.parameters(), lr=0.1)
    optimizer.zero_grad()
    model(torch.ones(2, 3)).sum().backward()
    optimizer.step()
with contained():
    for kind in (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop):
        train(kind)
print("torch._dynamo" in sys.modules)
train(torch.optim.SGD)
print("torch._dynamo" in sys.modules)
compiled = torch.compile(model, backend="eager")
print(tuple(compiled(torch.ones(2, 3)).shape))
"""


def test_no_optimizer_imports_the_compiler_and_later_all_is_as_before() -> None:
    run = subprocess.run(
        [sys.executable, "-c", APART], capture_output=True, text=True, check=False, timeout=300
    )
    assert run.stdout.split("\n")[:3] == ["False", "True", "(2, 1)"], run.stderr


RECORDED = """
import sys, torch
from icediag import Pipeline
from icediag.instruments.recorder.record import record
record(
    Pipeline(
        name="p",
        dataset=list(torch.ones(4, 3)),
        collate=torch.stack,
        model=torch.nn.Linear(3, 1),
        loss=lambda predicted, batch: predicted.square().mean(),
        optimizer=torch.optim.AdamW,
    )
)
print("torch._dynamo" in sys.modules)
"""


def test_a_recording_does_not_import_it_either() -> None:
    run = subprocess.run(
        [sys.executable, "-c", RECORDED], capture_output=True, text=True, check=False, timeout=300
    )
    assert run.stdout == "False\n", run.stderr


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam, torch.optim.RMSprop])
def test_a_step_is_the_same_step(
    kind: type[torch.optim.Optimizer], monkeypatch: pytest.MonkeyPatch
) -> None:
    def trained() -> list[list[float]]:
        torch.manual_seed(0)
        model = nn.Linear(3, 2)
        optimizer = kind(model.parameters(), lr=0.1)  # type: ignore[call-arg]
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.ones(2, 3)).square().sum().backward()
            optimizer.step()
        assert torch.is_grad_enabled()
        return [p.detach().flatten().tolist() for p in model.parameters()]

    before = [step.__code__ for step in uncompiled._steps()]
    assert before  # torch still has what is replaced
    plain = trained()
    # As it is where nobody has imported the compiler.
    monkeypatch.delitem(sys.modules, "torch._dynamo", raising=False)
    with uncompiled.uncompiled():
        assert not list(uncompiled._steps())
        assert trained() == plain
    assert [step.__code__ for step in uncompiled._steps()] == before
