"""A small ResNet on images: dict batches, batch statistics, augmentation, its own train_step."""

# B images, C channels, H and W pixels

from typing import Annotated, Any

import torch
from annotated_types import Ge
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from icediag import Pipeline

from .case import Fault, Patient

N_IMAGES, N_CLASSES = 128, 4
MEAN, STD = 0.45, 0.25
Batch = dict[str, Tensor]


class Pictures:
    """Stripes of one of four directions under noise, as bytes; normalised where they are read."""

    def __init__(self, fault: str | None, *, seed: int = 0, augment: bool = True) -> None:
        self.fault, self.augment = fault, augment
        generator = torch.Generator().manual_seed(seed)
        row, column = torch.meshgrid(torch.arange(16), torch.arange(16), indexing="ij")
        waves = torch.stack([row, column, row + column, row - column]).float()
        self.labels = torch.arange(N_IMAGES) % N_CLASSES
        phase = torch.rand(N_IMAGES, 1, 1, generator=generator) * 6.28
        stripes = 0.45 + 0.3 * torch.sin(waves[self.labels] * 0.9 + phase)
        noise = 0.1 * torch.randn(N_IMAGES, 3, 16, 16, generator=generator)
        pixels = (stripes[:, None] + noise).clamp(0, 1)
        self.pixels = (pixels * 255).to(torch.uint8)

    def __len__(self) -> int:
        return N_IMAGES

    def __getitem__(self, index: int) -> dict[str, Any]:
        image = self.pixels[index].float()
        if self.fault == "unit-range":
            image = image / 255
        elif self.fault != "bytes":
            image = (image / 255 - MEAN) / STD
        if self.augment and torch.rand(()) < 0.5:
            image = image + 0.02 * torch.randn_like(image)
        if self.fault == "doubles":
            image = image.double()
        return {"image": image, "label": int(self.labels[index])}


def collate(samples: list[dict[str, Any]]) -> Batch:
    return {
        "image": torch.stack([sample["image"] for sample in samples]),
        "label": torch.tensor([sample["label"] for sample in samples]),
    }


class Block(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)

    def forward(
        self, x: Annotated[Float[Tensor, "images channels height width"], Ge(0)]
    ) -> Annotated[Float[Tensor, "images channels height width"], Ge(0)]:
        hidden = functional.relu(self.norm1(self.conv1(x)))
        return functional.relu(x + self.norm2(self.conv2(hidden)))


class ResNet(nn.Module):
    def __init__(self, fault: str | None) -> None:
        super().__init__()
        self.fault = fault
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        blocks: Any = [Block(16) for _ in range(2)]
        if fault == "unregistered":
            # A plain list: its blocks have no place in parameters(), .to() or a checkpoint.
            self.blocks = blocks
        else:
            self.blocks = nn.ModuleList(blocks)
        self.scale: Tensor
        if fault == "plain-tensor":
            self.scale = torch.full((1, 16, 1, 1), 0.9)
        else:
            self.register_buffer("scale", torch.full((1, 16, 1, 1), 0.9))
        self.head = nn.Linear(16, N_CLASSES)
        if fault == "frozen-backbone":
            # On purpose, and whole: what is left is a linear probe.
            self.stem.requires_grad_(False)
            self.blocks.requires_grad_(False)
        if fault == "exploding":
            for block in blocks:
                nn.init.normal_(block.norm2.weight, 400.0, 1.0)

    def forward(self, batch: Batch) -> Tensor:
        image = batch["image"]
        if self.fault == "normalised-twice":
            image = (image - MEAN) / STD
        if self.fault == "doubles":
            image = image.matmul(torch.eye(16, dtype=torch.float64)).float()
        hidden = self.stem(image) * self.scale
        if self.fault != "forgets-relu":
            hidden = functional.relu(hidden)
        for block in self.blocks:
            hidden = block(hidden)
        if self.fault == "share-of-channel":
            # A channel that an image leaves dark is 0 everywhere.
            hidden = functional.relu(hidden - 1)
            hidden = hidden / hidden.sum((2, 3), keepdim=True)
        pooled = hidden.mean((2, 3))
        out: Tensor = self.head(pooled)
        if self.fault == "softmax-twice":
            out = out.softmax(1)
        return out


def loss(logits: Tensor, batch: Batch) -> Tensor:
    return functional.cross_entropy(logits, batch["label"])


def loss_by_image(logits: Tensor, batch: Batch) -> Tensor:
    """Image by image, and each label is read from the device."""
    total = logits.new_zeros(())
    for row in range(len(logits)):
        label = batch["label"][row].item()
        total = total - logits[row].log_softmax(0)[int(label)]
    return total / len(logits)


def train_step(model: nn.Module, batch: Batch, optimizer: torch.optim.Optimizer) -> Tensor:
    optimizer.zero_grad()
    value = loss(model(batch), batch)
    value.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return value.detach()


def step_without_zero(model: nn.Module, batch: Batch, optimizer: torch.optim.Optimizer) -> Tensor:
    value = loss(model(batch), batch)
    value.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return value.detach()


def step_clipped_away(model: nn.Module, batch: Batch, optimizer: torch.optim.Optimizer) -> Tensor:
    optimizer.zero_grad()
    value = loss(model(batch), batch)
    value.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(model.parameters(), 1e-5)
    optimizer.step()
    return value.detach()


def step_without_step(model: nn.Module, batch: Batch, optimizer: torch.optim.Optimizer) -> Tensor:
    optimizer.zero_grad()
    value = loss(model(batch), batch)
    value.backward()  # type: ignore[no-untyped-call]
    return value.detach()


def step_in_evaluation(model: nn.Module, batch: Batch, optimizer: torch.optim.Optimizer) -> Tensor:
    """Left over from a validation that did not switch back."""
    model.eval()
    return train_step(model, batch, optimizer)


def step_clipped_late(model: nn.Module, batch: Batch, optimizer: torch.optim.Optimizer) -> Tensor:
    value = train_step(model, batch, optimizer)
    nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
    return value


STEPS = {
    "clipped-late": step_clipped_late,
    "no-zero-grad": step_without_zero,
    "clipped-away": step_clipped_away,
    "no-step": step_without_step,
    "left-in-eval": step_in_evaluation,
}


def scheduled_step(model: nn.Module, every: int) -> Any:
    """A step with a schedule of its own, which falls to a tenth in each of its periods."""
    own = torch.optim.SGD(model.parameters(), 0.05)
    schedule = torch.optim.lr_scheduler.StepLR(own, every, gamma=0.1)

    def step(model: nn.Module, batch: Batch, _: torch.optim.Optimizer) -> Tensor:
        value = train_step(model, batch, own)
        schedule.step()
        return value

    return step


def build(fault: str | None) -> Pipeline:
    torch.manual_seed(0)
    dataset = Pictures(fault)
    model = ResNet(fault)
    validation: Any = Pictures(fault, seed=1, augment=fault == "augmented-validation")
    if fault == "validation-overlap":
        plain = Pictures(None, augment=False)
        dataset.augment = False
        validation = torch.utils.data.Subset(plain, range(0, N_IMAGES, 4))  # type: ignore[arg-type]

    def optimizer(parameters: Any) -> torch.optim.Optimizer:
        if fault == "half-optimised":
            return torch.optim.SGD(model.head.parameters(), 0.05, momentum=0.9)
        return torch.optim.SGD(parameters, 0.05, momentum=0.9)

    own_step = fault in STEPS or fault == "own-step"
    scheduled = scheduled_step(model, 1 if fault == "schedule-by-batch" else 400)
    own = {"schedule": scheduled, "schedule-by-batch": scheduled}
    return Pipeline(
        name="pictures",
        dataset=dataset,
        collate=collate,
        model=model,
        loss=loss_by_image if fault == "loss-by-image" else loss,
        optimizer=optimizer,
        batch_size=32,
        validation=validation,
        train_step=own.get(fault or "", STEPS.get(fault or "", train_step) if own_step else None),
        loader=lambda: torch.utils.data.DataLoader(
            dataset,  # type: ignore[arg-type]
            batch_size=4,
            shuffle=True,
            collate_fn=collate,
        ),
        sources=("tests.faults.pictures",),
    )


PATIENT = Patient(
    name="pictures",
    build=build,
    variants=("own-step", "schedule", "unit-range", "frozen-backbone"),
    faults=(
        Fault(name="bytes", checks=("unnormalized-input",), stages=("stem", "collate")),
        Fault(name="normalised-twice", checks=("double-normalization",), stages=("stem", "model")),
        Fault(name="doubles", checks=("wide-dtype",), stages=("model", "collate"), lowest="note"),
        Fault(name="forgets-relu", checks=("contract-broken",), stages=("blocks.0",)),
        Fault(name="share-of-channel", checks=("numerical-pole",), stages=("model",)),
        Fault(name="unregistered", checks=("unregistered-tensor", "optimizer-misses-parameters")),
        Fault(name="plain-tensor", checks=("unregistered-tensor",), stages=("model",)),
        Fault(name="exploding", checks=("exploding-gradient",)),
        # The cause, at the loss, says more than the slow learning that follows from it.
        Fault(name="softmax-twice", checks=("squashed-logits",), stages=("loss",)),
        Fault(name="loss-by-image", checks=("python-loop",), stages=("loss",)),
        Fault(name="no-zero-grad", checks=("accumulating-gradients",)),
        Fault(name="clipped-away", checks=("clipping-always-on",)),
        Fault(name="no-step", checks=("no-optimizer-step",)),
        Fault(name="clipped-late", checks=("step-order",)),
        Fault(name="schedule-by-batch", checks=("schedule-ends-early",)),
        Fault(name="left-in-eval", checks=("wrong-mode",)),
        Fault(name="validation-overlap", checks=("validation-overlap",)),
        Fault(name="augmented-validation", checks=("augmented-validation",)),
        Fault(name="half-optimised", checks=("optimizer-misses-parameters",)),
    ),
)
