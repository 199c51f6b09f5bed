"""Healthy pipelines of many styles, freshly initialised: nothing here may raise an alarm."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import TensorDataset, default_collate

from icediag import Pipeline

N = 32


def of(
    model: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    loss: Callable[[Any, Tensor], Tensor],
    **more: Any,
) -> Pipeline:
    arguments: dict[str, Any] = {"forward": lambda m, b: m(b[0]), "batch_size": N}
    return Pipeline(
        name=type(model).__name__,
        dataset=TensorDataset(inputs, targets),
        collate=default_collate,
        model=model,
        loss=lambda predictions, batch: loss(predictions, batch[1]),
        **(arguments | more),
    )


def classes(n: int, k: int = 5) -> Tensor:
    return torch.randint(0, k, (n,))


class Residual(nn.Module):
    def __init__(self, n_in: int, n_out: int, stride: int, zero: bool = False) -> None:
        super().__init__()
        self.first = nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(n_out)
        self.second = nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(n_out)
        self.short = nn.Conv2d(n_in, n_out, 1, stride, bias=False)
        if zero:
            nn.init.zeros_(self.norm2.weight)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm2(self.second(functional.relu(self.norm1(self.first(x)))))
        return functional.relu(y + self.short(x))


class ResNet(nn.Module):
    def __init__(self, zero: bool = False) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            Residual(3, 16, 1, zero), Residual(16, 32, 2, zero), Residual(32, 32, 2, zero)
        )
        self.head = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.blocks(x).mean((2, 3)))
        return out


def resnet(zero: bool = False, **more: Any) -> Pipeline:
    return of(ResNet(zero), torch.randn(N, 3, 12, 12), classes(N), functional.cross_entropy, **more)


class ViT(nn.Module):
    """Fixed positions as a frozen parameter, and a scale of 1e-5 on every branch."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Linear(12, 32)
        self.position = nn.Parameter(torch.randn(1, 9, 32), requires_grad=False)
        self.cls = nn.Parameter(torch.zeros(1, 1, 32))
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, norm_first=True)
            for _ in range(4)
        )
        self.scales = nn.ParameterList(nn.Parameter(torch.full((32,), 1e-5)) for _ in range(4))
        self.head = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        tokens = torch.cat([self.cls.expand(len(x), -1, -1), self.patch(x)], 1) + self.position
        for block, scale in zip(self.blocks, self.scales, strict=True):
            tokens = tokens + scale * (block(tokens) - tokens)
        out: Tensor = self.head(tokens.mean(1))
        return out


def vit() -> Pipeline:
    return of(ViT(), torch.randn(N, 8, 12), classes(N), functional.cross_entropy)


class Lstm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(100, 24, sparse=False)
        self.rnn = nn.LSTM(24, 32, 2, batch_first=True, dropout=0.3, bidirectional=True)
        self.head = nn.Linear(64, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.rnn(self.embed(x))[0][:, -1]).squeeze(-1)
        return out


def lstm() -> Pipeline:
    return of(
        Lstm(),
        torch.randint(0, 100, (N, 11)),
        torch.randint(0, 2, (N,)).float(),
        functional.binary_cross_entropy_with_logits,
    )


def mlp(*sizes: int, act: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(sizes):
        layers += [nn.Linear(a, b), act()]
    return nn.Sequential(*layers[:-1])


def table(**more: Any) -> Pipeline:
    x = torch.randn(N, 10)
    return of(mlp(10, 64, 64, 1), x, x[:, :1] * x[:, 1:2], functional.mse_loss, **more)


def deep_table(act: type[nn.Module] = nn.ReLU) -> Pipeline:
    x = torch.rand(N, 10)
    return of(mlp(10, *[64] * 6, 1, act=act), x, x[:, :1] * x[:, 1:2], functional.mse_loss)


def far_targets() -> Pipeline:
    """Targets of mean 1000: slow, and no fault."""
    x = torch.randn(N, 10)
    return of(mlp(10, 64, 64, 1), x, 1000 + x[:, :1], functional.l1_loss)


def momentum() -> Pipeline:
    return resnet(
        optimizer=lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=1e-4, nesterov=True)
    )


def sgd() -> Pipeline:
    return table(optimizer=lambda p: torch.optim.SGD(p, 0.01))


def lbfgs() -> Pipeline:
    return table(optimizer=lambda p: torch.optim.LBFGS(p, max_iter=5))


def summed() -> Pipeline:
    """A loss summed over the batch, and clipped hard: of no consequence to Adam."""

    def step(model: Any, batch: Any, optimizer: Any) -> Tensor:
        optimizer.zero_grad(set_to_none=False)
        loss = 100 * functional.mse_loss(model(batch[0]), batch[1], reduction="sum")
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss

    return table(train_step=step, optimizer=lambda p: torch.optim.AdamW(p, 3e-4))


class WarmUp:
    """A warm-up from 0, gradients summed over two batches, and an average of the weights."""

    def __init__(self, model: nn.Module) -> None:
        self.optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: min(1.0, step / 20)
        )
        self.average = torch.optim.swa_utils.AveragedModel(model)
        self.calls = 0

    def step(self, model: Any, batch: Any, optimizer: Any) -> Tensor:
        loss = functional.mse_loss(model(batch[0]), batch[1]) / 2
        loss.backward()  # type: ignore[no-untyped-call]
        self.calls += 1
        if self.calls % 2 == 0:
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.scheduler.step()
            self.average.update_parameters(model)
        return 2 * loss.detach()


def warm_up() -> Pipeline:
    pipeline = table()
    loop = WarmUp(pipeline.model)
    x = torch.randn(N, 10)
    return of(
        pipeline.model,
        x,
        x[:, :1],
        functional.mse_loss,
        train_step=loop.step,
        optimizer=lambda _: loop.optimizer,
    )


class Tuned(nn.Module):
    """A frozen backbone in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(*ResNet().blocks).requires_grad_(False).eval()
        self.head = nn.Linear(32, 5)

    def train(self, mode: bool = True) -> "Tuned":
        super().train(mode)
        self.backbone.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.backbone(x).mean((2, 3)))
        return out


def tuned() -> Pipeline:
    return of(Tuned(), torch.randn(N, 3, 12, 12), classes(N), functional.cross_entropy)


class LoRA(nn.Module):
    """Frozen weights with low-rank additions that begin at 0."""

    def __init__(self) -> None:
        super().__init__()
        self.base = nn.ModuleList(nn.Linear(16, 16).requires_grad_(False) for _ in range(3))
        self.down = nn.ParameterList(nn.Parameter(torch.randn(16, 4) / 4) for _ in range(3))
        self.up = nn.ParameterList(nn.Parameter(torch.zeros(4, 16)) for _ in range(3))
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        for base, down, up in zip(self.base, self.down, self.up, strict=True):
            x = functional.gelu(base(x) + x @ down @ up)
        out: Tensor = self.head(x)
        return out


def lora() -> Pipeline:
    return of(LoRA(), torch.randn(N, 16), classes(N), functional.cross_entropy)


class Gaussian(nn.Module):
    """Mean and logarithm of the variance: a loss without a floor."""

    def __init__(self) -> None:
        super().__init__()
        self.body = mlp(10, 64, 2, act=nn.SiLU)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(x)
        return out


def gaussian() -> Pipeline:
    def loss(p: Tensor, y: Tensor) -> Tensor:
        return functional.gaussian_nll_loss(p[:, 0], y[:, 0], p[:, 1].exp())

    x = torch.randn(N, 10)
    return of(Gaussian(), x, x[:, :1].sin() - 5, loss)


class Vae(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encode = mlp(20, 64, 8)
        self.decode = mlp(4, 64, 20)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        mean, log_variance = self.encode(x).chunk(2, -1)
        z = mean + torch.randn_like(mean) * (log_variance / 2).exp()
        return {"x": self.decode(z), "mean": mean, "log_variance": log_variance}


def vae() -> Pipeline:
    def loss(p: dict[str, Tensor], x: Tensor) -> Tensor:
        kl = 0.5 * (p["mean"] ** 2 + p["log_variance"].exp() - 1 - p["log_variance"]).sum(-1)
        return (functional.mse_loss(p["x"], x, reduction="none").sum(-1) + 0.01 * kl).mean()

    x = torch.randn(N, 20)
    return of(Vae(), x, x, loss)


class TwoHeads(nn.Module):
    """The second head is for another task, and not in this loss."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(10, 32), nn.LayerNorm(32), nn.GELU())
        self.first = nn.Linear(32, 5)
        self.second = nn.Linear(32, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.body(x)
        return self.first(hidden), self.second(hidden)


def two_heads() -> Pipeline:
    return of(
        TwoHeads(),
        torch.randn(N, 10),
        classes(N),
        lambda p, y: functional.cross_entropy(p[0], y),
    )


class Contrastive(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = mlp(10, 64, 16)
        self.scale = nn.Parameter(torch.tensor(math.log(10.0)))

    def forward(self, x: Tensor) -> Tensor:
        a = functional.normalize(self.body(x), dim=-1)
        b = functional.normalize(self.body(x + 0.1 * torch.randn_like(x)), dim=-1)
        out: Tensor = self.scale.exp() * a @ b.T
        return out


def contrastive() -> Pipeline:
    return of(
        Contrastive(),
        torch.randn(N, 10),
        classes(N),
        lambda p, _: functional.cross_entropy(p, torch.arange(len(p))),
    )


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(500, 32)
        layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
        self.body = nn.TransformerEncoder(layer, 3)
        self.out = nn.Linear(32, 500)

    def forward(self, x: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1])
        out: Tensor = self.out(self.body(self.embed(x), mask, is_causal=True))
        return out


def words() -> Pipeline:
    x = torch.randint(0, 500, (N, 12))
    return of(
        Words(),
        x,
        x,
        lambda p, y: functional.cross_entropy(p[:, :-1].flatten(0, 1), y[:, 1:].flatten()),
    )


class Gated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(10, 32), nn.Linear(10, 32)
        self.out = nn.Linear(32, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(torch.tanh(self.a(x)) * torch.sigmoid(self.b(x)))
        return out


def gated() -> Pipeline:
    x = torch.randn(N, 10)
    return of(Gated(), x, x[:, :2].abs(), functional.smooth_l1_loss)


def autocast() -> Pipeline:
    def step(model: Any, batch: Any, optimizer: Any) -> float:
        scaler = torch.amp.GradScaler("cpu", enabled=False)
        with torch.autocast("cpu", torch.bfloat16):
            loss = functional.cross_entropy(model(batch[0]), batch[1])
        optimizer.zero_grad()
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        scaler.step(optimizer)
        scaler.update()
        return loss.item()

    return resnet(train_step=step, optimizer=lambda p: torch.optim.AdamW(p, 1e-3))


HEALTHY: tuple[Callable[[], Pipeline], ...] = (
    resnet,
    lambda: resnet(zero=True),
    vit,
    lstm,
    table,
    deep_table,
    lambda: deep_table(nn.Tanh),
    far_targets,
    momentum,
    sgd,
    lbfgs,
    summed,
    warm_up,
    tuned,
    lora,
    gaussian,
    vae,
    two_heads,
    contrastive,
    words,
    gated,
    autocast,
)
