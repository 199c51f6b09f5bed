"""Steps: what the user's own training step does, in which order."""

import copy
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from icediag.instruments.running.lab import weights_of
from icediag.instruments.running.modes import train_mode
from icediag.instruments.running.preserve import preserved
from icediag.pipeline import Pipeline
from icediag.records.training import Event, Schedule, Step

#: Calls of the step that are watched: a schedule and accumulation show in a few.
CALLS = 4
#: Gradient norms that differ by less than this were not changed.
CHANGED = 1e-4
#: Modules that do in training what they do not in evaluation.
_MODAL = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)  # noqa: SLF001
#: Steps of a schedule that are tried, at most.
MOST = 20_000


class Watch:
    """Notes what happens to gradients, optimizers and schedules while a step runs.

    Args:
        model: The model.
    """

    def __init__(self, model: Any) -> None:
        self._model, self._parameters = model, weights_of(model)
        self._training: set[str] = set()
        self._ran_eval: set[str] = set()
        self.events: list[Event] = []
        self._begin()
        self.schedules: dict[int, tuple[Any, list[int]]] = {}
        self._call = 0
        self._depth = 0

    def _begin(self) -> None:
        self.events = []
        self._no_gradient = 0
        self._at_step: list[Tensor | None] | None = None
        self._ran_eval = set()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch all that is done within."""
        with ExitStack() as stack:
            for parameter in self._parameters:
                if parameter.requires_grad and parameter.is_leaf:
                    hook = parameter.register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call]
                        self._backward
                    )
                    stack.callback(hook.remove)
            if isinstance(self._model, nn.Module):
                for name, module in self._model.named_modules():
                    if isinstance(module, _MODAL):
                        hook = module.register_forward_pre_hook(self._forward(name))
                        stack.callback(hook.remove)
                self._wrap(stack, nn.Module, "zero_grad", self._zero)
            self._wrap(stack, torch.optim.Optimizer, "zero_grad", self._zero)
            pre = register_optimizer_step_pre_hook(self._before_step)
            post = register_optimizer_step_post_hook(self._after_step)
            stack.callback(pre.remove)
            stack.callback(post.remove)
            for schedule in _all_below(lr_scheduler.LRScheduler):
                if "step" in vars(schedule):
                    self._wrap(stack, schedule, "step", self._scheduled)
            yield

    def _wrap(self, stack: ExitStack, owner: Any, name: str, note: Callable[[Any], None]) -> None:
        before, watch = vars(owner)[name], self

        def stand_in(self: Any, *args: Any, **kwargs: Any) -> Any:
            # A method that calls that of its base, or of parts, is one call.
            if not watch._depth:
                note(self)
            watch._depth += 1
            try:
                return before(self, *args, **kwargs)
            finally:
                watch._depth -= 1

        setattr(owner, name, stand_in)
        stack.callback(setattr, owner, name, before)

    def _forward(self, name: str) -> Callable[..., None]:
        def note(module: nn.Module, _: Any) -> None:
            if not module.training and name in self._training:
                self._ran_eval.add(name)

        return note

    def _note(self, event: Event) -> None:
        if not self.events or self.events[-1] != event:
            self.events.append(event)

    def _backward(self, _: Tensor) -> None:
        self._note("backward")

    def _zero(self, _: Any) -> None:
        self._note("zero")

    def _gradients(self) -> list[Tensor | None]:
        return [None if p.grad is None else p.grad.detach().clone() for p in self._parameters]

    def _before_step(self, *_: Any) -> None:
        self._note("step")
        gradients = self._gradients()
        if "backward" in self.events and not any(
            g is not None and bool(g.any()) for g in gradients
        ):
            self._no_gradient += 1

    def _after_step(self, *_: Any) -> None:
        # What a closure did within the step is over: gradients are as the step leaves them.
        self._at_step = self._gradients()

    def _scheduled(self, schedule: Any) -> None:
        self._note("schedule")
        _, calls = self.schedules.setdefault(id(schedule), (schedule, [0] * CALLS))
        if self._call < CALLS:
            calls[self._call] += 1

    def call(self, number: int, run: Callable[[], Any]) -> Step:
        """Run one step."""
        self._begin()
        self._call = number
        if isinstance(self._model, nn.Module):
            self._training = {n for n, m in self._model.named_modules() if m.training}
        run()
        changed, by = self._changed()
        return Step(
            events=tuple(self.events),
            no_gradient=self._no_gradient,
            changed_after=changed,
            by=by,
            eval_modules=tuple(sorted(self._ran_eval)),
        )

    def _changed(self) -> tuple[int, float]:
        """Gradients that were scaled after the step; those set to zero, or added to, do not count.

        That a backward pass followed the step is no change of this kind.
        """
        last = max((k for k, e in enumerate(self.events) if e == "step"), default=None)
        if self._at_step is None or last is None or "backward" in self.events[last:]:
            return 0, 1.0
        changed, by = 0, 1.0
        for before, parameter in zip(self._at_step, self._parameters, strict=True):
            after = parameter.grad
            if before is None or after is None or not bool(before.any()) or not bool(after.any()):
                continue
            was, now = float(before.norm()), float(after.norm())
            if abs(now - was) > CHANGED * was:
                changed += 1
                by = max(by, was / now if now else 1.0, now / was if was else 1.0)
        return changed, by


def _all_below(kind: Any) -> list[Any]:
    found = [kind]
    for below in kind.__subclasses__():
        found += _all_below(below)
    return list(dict.fromkeys(found))


@contextmanager
def _objects_kept(function: Any) -> Iterator[None]:
    """Put back optimizers, schedules and scalers that a function holds in its closure or module."""
    cells = [
        cell.cell_contents for cell in getattr(function, "__closure__", None) or () if _full(cell)
    ]
    names = getattr(getattr(function, "__code__", None), "co_names", ())
    space = getattr(function, "__globals__", {})
    held = [*cells, *(space[name] for name in names if name in space)]
    owner = getattr(function, "__self__", None)
    held += list(vars(owner).values()) if hasattr(owner, "__dict__") else []
    kept = [
        (thing, copy.deepcopy(thing.state_dict()))
        for thing in held
        if isinstance(
            thing, (torch.optim.Optimizer, lr_scheduler.LRScheduler, torch.amp.GradScaler)
        )
    ]
    plain = [(thing, dict(thing)) for thing in held if type(thing) is dict and thing is not space]
    lists = [(thing, list(thing)) for thing in held if type(thing) is list]
    counts = [
        (thing, vars(thing).get("_step_count"), vars(thing).get("_opt_called")) for thing, _ in kept
    ]
    try:
        yield
    finally:
        for thing, state in kept:
            thing.load_state_dict(state)
        for thing, count, called in counts:
            for name, value in (("_step_count", count), ("_opt_called", called)):
                if value is None:
                    vars(thing).pop(name, None)
                else:
                    vars(thing)[name] = value
        for mapping, before in plain:
            if mapping != before:
                mapping.clear()
                mapping.update(before)
        for sequence, items in lists:
            sequence[:] = items


def _full(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018 - an empty cell raises
    except ValueError:
        return False
    return True


def watch_steps(
    pipeline: Pipeline, batches: Callable[[int], Any], calls_of_epoch: int
) -> tuple[list[Step], tuple[str, ...], list[Schedule]]:
    """Run the pipeline's own step a few times, everything put back after.

    Args:
        pipeline: Whose step.
        batches: number -> a batch.
        calls_of_epoch: Steps of an epoch.

    Returns:
        What each call did, modules left in evaluation, and schedules.

    Raises:
        Exception: Whatever the user's code raises.
    """
    model, step = pipeline.model, pipeline.train_step
    assert step is not None
    with (
        _objects_kept(step),
        _objects_kept(pipeline.optimizer),
        preserved(model),
        warnings.catch_warnings(),
        torch.enable_grad(),
    ):
        warnings.simplefilter("ignore")
        train_mode(model)
        optimizer = None
        if pipeline.optimizer is not None:
            optimizer = pipeline.optimizer(weights_of(model))
        watch = Watch(model)
        before = _in_training(model)
        with watch.watching():
            steps = [
                watch.call(k, lambda k=k: step(model, batches(k), optimizer))  # type: ignore[misc]
                for k in range(CALLS)
            ]
        left = tuple(sorted(before - _in_training(model)))
        schedules = [
            found
            for schedule, calls in watch.schedules.values()
            if (found := _schedule(schedule, calls, calls_of_epoch)) is not None
        ]
    return steps, left, schedules


def _in_training(model: Any) -> set[str]:
    if not isinstance(model, nn.Module):
        return set()
    return {name for name, module in model.named_modules() if module.training}


def _schedule(schedule: Any, calls: list[int], epoch: int) -> Schedule | None:
    """Where the learning rate is after half an epoch, by moving the schedule on alone."""
    per_call = sum(calls) / len(calls)
    if isinstance(schedule, lr_scheduler.ReduceLROnPlateau) or not per_call:
        return None
    total = min(MOST, round(per_call * epoch / 2))
    groups = schedule.optimizer.param_groups
    rates = [max(float(group["lr"]) for group in groups)]
    first = rates[0]
    for _ in range(max(0, total - sum(calls))):
        try:
            schedule.step()
        except ValueError:
            break  # a schedule of a fixed length that is at its end
        rates.append(max(float(group["lr"]) for group in groups))
    initial = [float(group.get("initial_lr", 0.0)) for group in groups]
    return Schedule(
        name=type(schedule).__name__,
        per_call=per_call,
        calls=epoch,
        first=max([*initial, 0.0]) or first,
        highest=max([*rates, *initial]),
        half=rates[-1],
    )
