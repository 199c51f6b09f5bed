"""Where a gradient stops being finite: the first operation on the way back, and its line."""

import re
import sys
import warnings
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor

from icediag.instruments.bounds.places import is_user_file
from icediag.instruments.running.stages import relative_file
from icediag.instruments.running.workbench import Batches, Workbench
from icediag.records.gradients import NonFiniteOp

#: Operations on the way back that are looked at.
MOST_NODES = 20_000


def origin_of_non_finite(bench: Workbench, batches: list[Batches]) -> NonFiniteOp | None:
    """Go back through the first micro-batch that shows it, node by node.

    Anomaly mode keeps with each node the stack of its forward call; what goes in and out of a node
    is looked at as it runs, so that an infinite value is found too, not NaN alone.
    """
    for batch in batches:
        with bench.from_here(), torch.enable_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with torch.autograd.set_detect_anomaly(True, check_nan=False):
                loss = bench.loss(batch())
            found = _backward(loss)
        if found is not None:
            return found
    return None


def _backward(loss: Tensor) -> NonFiniteOp | None:
    found: list[NonFiniteOp] = []
    nodes: list[Any] = []
    queue: list[Any] = [loss.grad_fn]
    seen: set[Any] = set()
    while queue and len(nodes) < MOST_NODES:
        node = queue.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        nodes.append(node)
        queue += [following for following, _ in node.next_functions]
    with ExitStack() as hooks:
        for node in nodes:

            def after(gave: Any, got: Any, node: Any = node) -> None:
                if found or node.name().endswith("AccumulateGrad"):
                    return
                bad = [g for g in gave if g is not None and not _finite(g)]
                if bad and all(g is None or _finite(g) for g in got):
                    file, line = _line_of(node)
                    value = "nan" if bool(torch.isnan(bad[0]).any()) else "inf"
                    found.append(
                        NonFiniteOp(op=node.name(), stage="", file=file, line=line, value=value)
                    )

            hooks.callback(node.register_hook(after).remove)
        loss.backward()  # type: ignore[no-untyped-call]
    return found[0] if found else None


def _finite(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() or bool(tensor.isfinite().all())


def _line_of(node: Any) -> tuple[str | None, int | None]:
    """The innermost line of the user's in the stack that anomaly mode kept."""
    modules = {getattr(m, "__file__", None): name for name, m in list(sys.modules.items())}
    for entry in reversed(node.metadata.get("traceback_", [])):
        match = re.match(r'\s*File "(?P<file>[^"]+)", line (?P<line>\d+)', entry)
        if match is not None and is_user_file(match["file"]):
            return relative_file(match["file"], modules.get(match["file"])), int(match["line"])
    return None, None
