"""Steps leave memory behind, more with every step.

What it looks at:
    Four steps on the same batch, after two that make what is made once: bytes of tensors that the
    allocator counts after each, tensors that are alive, those of them that still carry the graph
    they come from, and containers of the model that get longer. All is counted, nothing measured.
Why it hurts:
    A loss that is kept for a mean keeps the whole graph of its step. The run ends hours later, out
    of memory, in a line that has nothing to do with it.
A bad run:
    `self.losses.append(loss)` in the model; a list of outputs that is never emptied.
What to do:
    Keep `loss.detach()`, or `loss.item()` once in a while; empty lists after each epoch.
Limits:
    What is kept outside of the model is seen by its tensors, not by its place. What fills up and
    stops, such as a bank of past samples, looks the same while it fills. An optimizer that keeps a
    history of steps is not judged.
"""

import itertools

from icediag.finding import Finding, Severity
from icediag.recording import Recording, Unjudged
from icediag.records.clock import MemoryRecord

CODE = "P23"
NAME = "memory-growth"
NEEDS = ("clock",)

#: Steps that must agree.
STEPS = 3
#: Bytes a step below which, without a graph, it is only worth knowing: a number that is kept.
BYTES = 4096
#: Optimizers that keep some past steps: their memory grows, and ends.
WITH_HISTORY = frozenset({"LBFGS"})


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Look for what grows with every step."""
    assert recording.clock is not None
    memory, optimizer = recording.clock.memory, recording.clock.optimizer
    if memory is None or len(memory.left_bytes) < STEPS:
        why = recording.clock.missing.get("memory", recording.clock.missing.get("steps", ""))
        return Unjudged(name=NAME, reason=why or "memory was not counted over several steps")
    if optimizer in WITH_HISTORY:
        reason = f"{optimizer} keeps a history of steps, which grows until it is full"
        return Unjudged(name=NAME, reason=reason)
    graphs = _each(memory.left_graphs)
    by_bytes = _each(memory.left_bytes)
    if not by_bytes and not graphs and not memory.growing:
        return ()
    return (_finding(memory, min(by_bytes, default=0), min(graphs, default=0)),)


def _each(totals: tuple[int, ...]) -> list[int]:
    """What each step added; nothing unless every one did."""
    steps = [b - a for a, b in itertools.pairwise((0, *totals))]
    return steps if steps and min(steps) > 0 else []


def _counted(n: int, what: str) -> str:
    return f"{n:,} {what}" + ("" if n == 1 else "s")


def _finding(memory: MemoryRecord, by_bytes: int, graphs: int) -> Finding:
    severe = graphs > 0 or by_bytes >= BYTES
    severity: Severity = "warning" if severe else "note"
    said = []
    if by_bytes:
        said.append(f"{by_bytes:,} bytes of tensors")
    if graphs:
        said.append(f"{_counted(graphs, 'tensor')} with the graph that came with it")
    for place in memory.growing[:3]:
        owner = "the model" if place.stage == "model" else place.stage
        entries = "entry" if place.per_step == 1 else "entries"
        said.append(f"{place.per_step:,} {entries} in {place.attribute} of {owner}")
    first = memory.growing[0] if memory.growing else None
    if graphs:
        remedy = "Keep the value alone: loss.detach(), or loss.item() once in a while."
    else:
        remedy = "Empty it after each epoch, or keep running sums instead."
    if first is not None:
        remedy = f"Look at {first.attribute}. {remedy}"
    return Finding(
        code=CODE,
        name=NAME,
        severity=severity,
        stage=first.stage if first is not None else "model",
        message=(
            f"Each of {len(memory.left_bytes)} steps on the same batch of {memory.batch_size:,} "
            f"samples leaves behind {', '.join(said)}."
        ),
        evidence={
            "bytes_a_step": by_bytes,
            "graphs_a_step": graphs,
            "left_bytes": list(memory.left_bytes),
            "left_tensors": list(memory.left_tensors),
            "left_graphs": list(memory.left_graphs),
            "peak_bytes": memory.peak_bytes,
            "attribute": first.attribute if first is not None else None,
        },
        remedy=remedy,
        location=first.location if first is not None else None,
    )
