"""`icediag.watch`: a guard beside a training loop, within a budget of the loop's time."""

import math
import time
import warnings
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from .keep import Keeper
from .log import Log
from .looks import Glance, Look, layers_of, names_of, spread
from .problem import Problem, TrainingStoppedError, WatchWarning
from .rules import Rules

#: Share of the run's time that a watch may take.
BUDGET = 0.01
#: Steps between samples, at least and at most, as far as the budget allows: five samples in fifty
#: steps are what the rules go by.
MOST = 10
#: A copy of the state is taken this seldom at least; oftener than every so many steps it is not.
KEEP_EVERY = 25


class Watch:
    """Watches a training; see `watch`."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        out: str | Path | None = None,
        baseline_loss: float | None = None,
        on_problem: Literal["warn", "raise"] | Callable[[Problem], None] = "warn",
        budget: float = BUDGET,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        if not 0 < budget <= 1:
            raise ValueError(f"budget: expected a share above 0, at most 1, got {budget}")
        if on_problem not in ("warn", "raise") and not callable(on_problem):
            raise ValueError(f"on_problem: expected warn, raise or a function, got {on_problem!r}")
        self._model, self._optimizer = model, optimizer
        self._on_problem, self._budget, self._clock = on_problem, budget, clock
        self._folder = None if out is None else Path(out)
        self._rules = Rules(baseline_loss, fresh=not optimizer.state)
        self._parameters = names_of(model, optimizer)
        self._layers = layers_of(model)
        self._keeper = Keeper(model, optimizer, self._folder)
        self._log: Log | None = None
        self._hooks: list[Any] = []
        self._look: Look | None = None
        self._predictions: Any = None
        self._glance: Glance | None = None
        self._losses: deque[tuple[int, Tensor, Any, Glance | None]] = deque()
        self._spent, self._began = 0.0, 0.0
        self._sampled, self._kept = 0, 0
        self.steps = 0
        self.problems: list[Problem] = []

    # ---- around the loop

    def __enter__(self) -> Self:
        self._log = Log(self._folder)
        self._began = self._clock()
        self._hooks = [
            self._optimizer.register_step_pre_hook(self._before),
            self._optimizer.register_step_post_hook(self._after),
            self._model.register_forward_hook(self._forward),
        ]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        try:
            if kind is None:
                self._read_losses(0)
        finally:
            assert self._log is not None
            self._log.close()

    @property
    def share(self) -> float:
        """Share of the time since the watch began that it took itself, 0..1."""
        passed = self._clock() - self._began
        return self._spent / passed if passed > 0 else 0.0

    @property
    def last_good(self) -> dict[str, Any] | None:
        """The last good state: `step`, `model`, `optimizer`; None before the first."""
        return self._keeper.state

    # ---- in the loop

    def step(self, loss: Tensor | float, batch: Any = None, predictions: Any = None) -> None:
        """Say that a step is done, after `optimizer.step()`.

        Args:
            loss: Its loss: a tensor of one value. On a GPU it is read one step later, so that the
                device is never waited for.
            batch: Its batch, to be kept for a replay should this be the step that goes wrong.
            predictions: What the model gave; without, what its `forward` returned last.

        Raises:
            TrainingStoppedError: A problem, where `on_problem` is "raise".
        """
        began = self._clock()
        self.steps += 1
        value = loss.detach() if isinstance(loss, Tensor) else torch.tensor(float(loss))
        glance, self._glance = self._glance, None
        self._losses.append((self.steps, value, batch, glance))
        try:
            # The loss first: where it is not finite, no gradient is.
            self._read_losses(0 if value.device.type == "cpu" else 1)
            look, self._look = self._look, None
            if look is not None:
                given = self._predictions if predictions is None else predictions
                look.spread = spread(given)
                self._read_look(look, batch)
            self._predictions = None
            due = self.steps == 1 or self.steps - self._kept >= KEEP_EVERY
            if due and (self._kept == 0 or self._affordable()):
                self._read_losses(0)
                if not any(problem.kind == "non-finite" for problem in self.problems):
                    self._keeper.keep(self.steps)
                self._kept = self.steps
        finally:
            self._spent += self._clock() - began

    def _affordable(self, part: float = 1.0) -> bool:
        return self._spent <= part * self._budget * (self._clock() - self._began)

    def _before(self, *_: Any) -> None:
        """Before the optimizer's step: look at a few gradients, and at all if it is time."""
        since = self.steps + 1 - self._sampled
        if self._sampled and (since < MOST or not self._affordable()):
            # Half of the budget is left to the samples.
            if self._affordable(0.5):
                began = self._clock()
                self._glance = Glance.at(self._parameters)
                self._spent += self._clock() - began
            return
        began = self._clock()
        self._sampled = self.steps + 1
        with torch.no_grad():
            self._look = Look.at(self.steps + 1, self._parameters, self._layers)
        self._spent += self._clock() - began

    def _after(self, *_: Any) -> None:
        if self._look is not None and self._look.before:
            began = self._clock()
            with torch.no_grad():
                self._look.after()
            self._spent += self._clock() - began

    def _forward(self, _: nn.Module, __: Any, output: Any) -> None:
        self._predictions = output

    # ---- what comes of it

    def _read_losses(self, leave: int) -> None:
        """Read losses from the device, but for the last few."""
        while len(self._losses) > leave:
            step, value, batch, glance = self._losses.popleft()
            number = float(value)
            for problem in self._rules.loss(step, number):
                self._say(problem, batch)
            # The weights are lost with it: the loss of the next step would blame the next batch.
            bad = glance.bad(self._parameters) if glance is not None and number == number else ()
            for problem in self._rules.gradient(step, bad):
                self._say(problem, batch)
            if self._log is not None and math.isfinite(number) and step == self._sampled:
                self._log.scalars(step, {"loss": number})

    def _read_look(self, look: Look, batch: Any) -> None:
        with torch.no_grad():
            sample = look.read()
        if self._log is not None:
            numbers = {
                "gradient_norm": sample.gradient_norm,
                "update": sample.update,
                "spread": sample.spread,
            }
            self._log.scalars(sample.step, numbers)
        for problem in self._rules.sample(sample):
            self._say(problem, batch)

    def _say(self, problem: Problem, batch: Any) -> None:
        self.problems.append(problem)
        assert self._log is not None, "a watch watches inside its `with`"
        self._log.write(problem.line())
        kept = self._keeper.write(batch if problem.kind == "non-finite" else None)
        for sentence in kept:
            self._log.write({"event": "kept", "step": problem.step, "message": sentence})
        if callable(self._on_problem):
            self._on_problem(problem)
        elif self._on_problem == "raise":
            raise TrainingStoppedError(problem)
        else:
            warnings.warn(problem.message, WatchWarning, stacklevel=4)


def watch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    out: str | Path | None = None,
    baseline_loss: float | None = None,
    on_problem: Literal["warn", "raise"] | Callable[[Problem], None] = "warn",
    budget: float = BUDGET,
) -> Watch:
    """Watch a training loop.

    ```
    with icediag.watch(model, optimizer, out="runs/watch", baseline_loss=math.pi / 2) as watch:
        for batch in loader:
            optimizer.zero_grad()
            loss = criterion(model(batch), batch)
            loss.backward()
            optimizer.step()
            watch.step(loss, batch)
    ```

    Every loss, and the gradient of a few parameters, is looked at, so that a value that is not
    finite is named within a step. All gradients, weights and predictions are looked at in a tenth
    of the steps, which names what is wrong with them within fifty; where that would take more than
    `budget` of the run's time, as of a network whose step takes less than a millisecond, in fewer.
    Nothing of the loop is changed.

    Args:
        model: What is trained.
        optimizer: What moves it.
        out: Folder for `watch.jsonl`, TensorBoard scalars, and, when something breaks, the last
            good state and the batch; None writes nothing.
        baseline_loss: What a predictor that knows nothing scores: a loss that stays there is named.
        on_problem: "warn" (a `WatchWarning`), "raise" (a `TrainingStoppedError`), or a function.
        budget: Share of the run's time that the watch may take, above 0, at most 1.

    Raises:
        ValueError: An argument is off.
        IcediagError: The folder cannot be written to.
    """
    return Watch(
        model,
        optimizer,
        out=out,
        baseline_loss=baseline_loss,
        on_problem=on_problem,
        budget=budget,
    )
