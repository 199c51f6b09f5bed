"""Other tools on the same builds, as they are used by default, where they are installed.

Neither knows our faults by name. A tool is said to have found a fault where it raises an alarm, a
warning or worse, that it does not raise on the healthy twin, whatever
it says: that is in its favour.
"""

import importlib
import importlib.util
import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from icediag import Pipeline
from icediag.instruments.running.containment import contained

#: Steps that a tool which looks on while training is given: enough for each of its phases.
STEPS = 3
#: Samples of the batch they are given: one of them takes two hundred steps on it.
MOST = 16
#: Seconds that a tool may take for one build.
LONGEST = 120.0


def batch_of(pipeline: Pipeline) -> Any:
    """A first batch."""
    data: Any = pipeline.dataset
    if hasattr(data, "__getitem__") and hasattr(data, "__len__"):
        samples = [data[i] for i in range(min(len(data), MOST))]
    else:
        samples = list(itertools.islice(data, MOST))
    return pipeline.collate(samples)


def _optimizer(pipeline: Pipeline, model: nn.Module) -> Any:
    if pipeline.optimizer is None:
        return torch.optim.Adam(model.parameters(), 1e-3)
    return pipeline.optimizer(model.parameters())


def torchtest2(pipeline: Pipeline) -> frozenset[str]:
    """Names of checks that warn or fail in `torchtest2.check_model`."""
    tool = importlib.import_module("torchtest2")
    model: Any = pipeline.model
    batch = batch_of(pipeline)
    forward = pipeline.forward
    report = tool.check_model(
        model,
        (batch,),
        batch,
        loss_fn=pipeline.loss,
        optimizer=_optimizer(pipeline, model),
        forward_fn=None if forward is None else lambda net, inputs, _: forward(net, inputs[0]),
        eval_forward_fn=None if forward is None else lambda net, inputs: forward(net, inputs[0]),
    )
    return frozenset(result.name for result in (*report.failures, *report.warnings))


def torch_audit(pipeline: Pipeline) -> frozenset[str]:
    """Rules of torch-audit that warn or worse, before and during a few steps."""
    tool = importlib.import_module("torch_audit")
    model: Any = pipeline.model
    optimizer = _optimizer(pipeline, model)
    auditor = tool.Auditor(model, optimizer=optimizer, every_n_steps=1)
    forward = pipeline.forward
    with auditor:
        auditor.audit_static()
        auditor.audit_init()
        for _ in range(STEPS):
            batch = batch_of(pipeline)
            optimizer.zero_grad(set_to_none=True)
            if forward is None:
                predictions = auditor.forward(batch)
            else:
                auditor.audit_data(batch)
                predictions = forward(model, batch)
            auditor.backward(pipeline.loss(predictions, batch))
            auditor.optimizer_step()
        found = auditor.finish().findings
    return frozenset(item.rule_id for item in found if item.severity.value != "INFO")


#: Name on PyPI -> (module, how it is asked).
PEERS: dict[str, tuple[str, Callable[[Pipeline], frozenset[str]]]] = {
    "torchtest2": ("torchtest2", torchtest2),
    "torch-audit": ("torch_audit", torch_audit),
}


def installed() -> dict[str, bool]:
    """Which of them can be imported."""
    found = {name: importlib.util.find_spec(module) for name, (module, _) in PEERS.items()}
    return {name: spec is not None for name, spec in found.items()}


def alarms(name: str, build: Callable[[], Pipeline]) -> frozenset[str] | None:
    """What a tool raises on a build, which is made anew for it; None where it fails itself."""
    try:
        with contained(LONGEST):
            torch.manual_seed(0)
            return PEERS[name][1](build())
    except Exception:  # of a tool that does not take such a pipeline
        return None


def verdict(found: frozenset[str] | None, healthy: frozenset[str] | None) -> str:
    """For a fault: "yes", "no" or "fails"."""
    if found is None:
        return "fails"
    return "yes" if found - (healthy or frozenset()) else "no"
