"""After any instrument all is as it was, to the bit: weights, optimizer, generators, data order."""

import copy
import random
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from icediag import Domain, Pipeline, Raw, watch
from icediag.instruments.examine import INSTRUMENTS, examine
from icediag.watching import WatchWarning
from tests.test_preserve import generators, snapshot

N = 24


class Numbers(Dataset[Any]):
    """Samples that draw from a generator of their own."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(5)
        self.values = torch.randn(N, 3, generator=torch.Generator().manual_seed(1))

    def __len__(self) -> int:
        return N

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        noise = 1e-3 * torch.randn(3, generator=self.generator)
        return self.values[index] + noise, self.values[index].abs().sum()


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm = nn.Linear(3, 8), nn.BatchNorm1d(8)
        self.drop = nn.Dropout(0.1)

    def forward(self, times: Tensor) -> Tensor:
        out: Tensor = self.drop(self.norm(self.layer(times)).relu())
        return out


class Net(nn.Module):
    """Faults enough that every repair is tried: scaled inputs, a bare head."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.head = Encoder(), nn.Linear(8, 1)

    def forward(self, batch: Any) -> Tensor:
        out: Tensor = self.head(self.encoder(batch[0] * 1e-3))
        return out


class Held:
    """A training under way: its model, optimizer, schedule, loader and data set."""

    def __init__(self) -> None:
        torch.manual_seed(3)
        self.dataset, self.model = Numbers(), Net()
        self.optimizer = torch.optim.Adam(self.model.parameters(), 1e-2)
        self.schedule = torch.optim.lr_scheduler.StepLR(self.optimizer, 50)
        self.generator = torch.Generator().manual_seed(9)
        self.loader: DataLoader[Any] = DataLoader(
            self.dataset, 6, shuffle=True, generator=self.generator
        )
        for batch in self.loader:
            self.step(self.model, batch, self.optimizer)
        self.model.head.eval()
        self.model.encoder.layer.bias.requires_grad_(False)

    def loss(self, predictions: Tensor, batch: Any) -> Tensor:
        return nn.functional.mse_loss(predictions, batch[1][:, None])

    def step(self, model: Any, batch: Any, _: Any) -> Tensor:
        self.optimizer.zero_grad()
        loss = self.loss(model(batch), batch)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.schedule.step()
        return loss

    def pipeline(self, *, own_step: bool) -> Pipeline:
        return Pipeline(
            name="held",
            dataset=self.dataset,
            collate=torch.utils.data.default_collate,
            model=self.model,
            loss=self.loss,
            optimizer=lambda parameters: torch.optim.Adam(parameters, 1e-2),
            batch_size=6,
            outputs={"size": Domain(0.0, 3.0)},
            contracts={f"{__name__}:Encoder": {"times": Raw("time")}},
            raw={"time": lambda batch: batch[0]},
            validation=copy.deepcopy(self.dataset),
            train_step=self.step if own_step else None,
            loader=lambda: self.loader,
            sources=(__name__,),
        )

    def state(self) -> dict[str, Any]:
        """All of it, to the last bit."""
        moments = [
            {k: v.numpy().tobytes() if isinstance(v, Tensor) else v for k, v in values.items()}
            for values in self.optimizer.state.values()
        ]
        return {
            "model": snapshot(self.model),
            "moments": moments,
            "groups": [
                {k: v for k, v in group.items() if k != "params"}
                for group in self.optimizer.param_groups
            ],
            "schedule": dict(self.schedule.state_dict()),
            "generators": generators(),
            "own generators": [
                g.get_state().numpy().tobytes() for g in (self.generator, self.dataset.generator)
            ],
            "data": self.dataset.values.numpy().tobytes(),
            "modes": (
                torch.get_default_dtype(),
                torch.is_grad_enabled(),
                torch.get_num_threads(),
                torch.are_deterministic_algorithms_enabled(),
            ),
            "filters": list(warnings.filters),
        }

    def order(self) -> list[list[float]]:
        """What the next epoch gives, in its order, to the last bit."""
        return [batch[0].flatten().tolist() for batch in self.loader]


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Numbers of the global generators that are seldom those after a seed."""
    torch.manual_seed(41)
    random.seed(42)
    np.random.seed(43)  # noqa: NPY002 - as users do
    torch.rand(7)


#: Those that train for seconds, and those that take the pipeline's own step.
LONG = ("overfit", "effects")
STEPS = ("lines", "operations", "clock", "training_flow", "gradients", *LONG)


@pytest.mark.parametrize(
    ("field", "own_step"),
    [
        pytest.param(
            instrument.field,
            own_step,
            marks=[pytest.mark.slow]
            if instrument.field in LONG or (instrument.field in STEPS and not own_step)
            else [],
        )
        for instrument in INSTRUMENTS
        for own_step in ((True, False) if instrument.field in STEPS else (False,))
    ],
)
def test_an_instrument_leaves_a_training_as_it_was(field: str, own_step: bool) -> None:
    held, twin = Held(), Held()
    before = held.state()
    needs = {field} if field != "effects" else {"provenance", "bounds", "gradients", "effects"}
    recording = examine(held.pipeline(own_step=own_step), needs=needs, seed=5)
    assert getattr(recording, field) is not None, recording.not_judged
    if field == "effects":
        assert recording.effects is not None and recording.effects.effects
    after = held.state()
    for name, was in before.items():
        assert after[name] == was, name
    # And what comes next is what would have come.
    assert held.order() == twin.order()


def test_a_watch_leaves_a_training_as_it_was(tmp_path: Any) -> None:
    held, twin = Held(), Held()
    torch.manual_seed(41)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", WatchWarning)
        with watch(held.model, held.optimizer, out=tmp_path, budget=1.0) as guard:
            for batch in held.loader:
                guard.step(held.step(held.model, batch, None), batch)
    ours = held.state()
    torch.manual_seed(41)
    for batch in twin.loader:
        twin.step(twin.model, batch, None)
    theirs = twin.state()
    names = ("moments", "groups", "schedule", "generators", "own generators", "data", "modes")
    for name in names:
        assert ours[name] == theirs[name], name
    for one, other in zip(
        [*held.model.parameters(), *held.model.buffers()],
        [*twin.model.parameters(), *twin.model.buffers()],
        strict=True,
    ):
        assert torch.equal(one, other)
    assert held.order() == twin.order()


def test_the_state_that_is_compared_is_all_of_it() -> None:
    """Each change that an instrument could leave behind shows in what is compared."""
    held = Held()
    before = held.state()

    def touched() -> set[str]:
        return {name for name, value in held.state().items() if value != before[name]}

    changes: dict[str, Any] = {
        "model": lambda: held.model.head.train(),
        "moments": lambda: next(iter(held.optimizer.state.values()))["exp_avg"].add_(1e-9),
        "groups": lambda: held.optimizer.param_groups[0].update(lr=0.5),
        "schedule": lambda: setattr(held.schedule, "last_epoch", 99),
        "generators": lambda: torch.rand(1),
        "own generators": lambda: torch.rand(1, generator=held.dataset.generator),
        "data": lambda: held.dataset.values.add_(1e-3),
    }
    seen: set[str] = set()
    for name, change in changes.items():
        change()
        assert name in touched()
        seen.add(name)
        assert touched() <= seen
