"""A small causal language model: tuples of tokens, `nn.TransformerEncoder`, padding."""

# B lines, L longest line, F features

from typing import Annotated, Any

import torch
from annotated_types import Ge, Lt
from jaxtyping import Int64
from torch import Tensor, nn
from torch.nn import functional

from icediag import Pipeline

from .case import Fault, Patient

VOCABULARY, PAD, N_LINES = 32, 0, 96
Tokens = Annotated[Int64[Tensor, "lines places"], Ge(0), Lt(VOCABULARY)]
Batch = tuple[Tokens, Tokens]


def lines() -> list[Tensor]:
    """Counting up by 1, 2 or 3 modulo the vocabulary, from a random start."""
    generator = torch.Generator().manual_seed(5)
    made = []
    for index in range(N_LINES):
        n = int(torch.randint(5, 24, (), generator=generator))
        start = int(torch.randint(0, VOCABULARY - 1, (), generator=generator))
        made.append((start + (index % 3 + 1) * torch.arange(n)) % (VOCABULARY - 1) + 1)
    return made


def collate(samples: list[Tensor]) -> Batch:
    tokens = nn.utils.rnn.pad_sequence(samples, batch_first=True, padding_value=PAD)
    return tokens[:, :-1], tokens[:, 1:]


def collate_narrow(samples: list[Tensor]) -> Batch:
    """Tokens in 32 bits, which an embedding takes as well."""
    tokens, targets = collate(samples)
    return tokens.int(), targets


def collate_by_token(samples: list[Tensor]) -> Batch:
    """Token by token through Python integers."""
    longest = max(map(len, samples))
    tokens = torch.zeros(len(samples), longest, dtype=torch.long)
    for row, line in enumerate(samples):
        for place, token in enumerate(line.tolist()):
            tokens[row, place] = token
    return tokens[:, :-1], tokens[:, 1:]


class LanguageModel(nn.Module):
    def __init__(self, fault: str | None, width: int = 32, *, norm_first: bool = True) -> None:
        super().__init__()
        self.fault = fault
        self.embed = nn.Embedding(VOCABULARY, width)
        self.number = nn.Linear(1, width)
        self.place = nn.Embedding(32, width)
        layer = nn.TransformerEncoderLayer(
            *(width, 4, 64),
            dropout=0.1 if fault == "dropout" else 0.0,
            batch_first=fault != "attends-across",
            norm_first=norm_first,
        )
        depth = 24 if fault == "vanishing" else 2
        self.body = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, VOCABULARY)
        if fault == "vanishing":
            squash: list[nn.Module] = []
            for _ in range(12):
                linear = nn.Linear(width, width)
                nn.init.normal_(linear.weight, 0.0, 0.02)
                squash += [linear, nn.Sigmoid()]
            self.body = nn.Sequential(*squash)  # type: ignore[assignment]
        if fault != "number-tokens":
            del self.number
        if fault == "tied":
            self.head.weight = self.embed.weight
            nn.init.normal_(self.embed.weight, std=width**-0.5)

    def forward(self, batch: Batch) -> Tensor:
        tokens, _ = batch
        if self.fault == "number-tokens":
            hidden = self.number(tokens[..., None] / VOCABULARY)
        else:
            hidden = self.embed(tokens)
        places = torch.arange(tokens.shape[1])
        if self.fault == "wrapping-key":
            key = tokens.short() * 1100 + places.short()
            hidden = hidden + self.embed(key.long() % VOCABULARY)
        hidden = hidden + self.place(places)
        if self.fault == "mean-over-padding":
            hidden = hidden - hidden.mean(1, keepdim=True)
        if self.fault == "root-of-padding":
            kept = hidden * (tokens != PAD)[..., None]
            hidden = hidden * kept.square().sum(2, keepdim=True).sqrt()
        if self.fault in ("vanishing", "attends-across"):
            hidden = self.body(hidden)
        else:
            causal = nn.Transformer.generate_square_subsequent_mask(tokens.shape[1]).bool()
            hidden = self.body(hidden, mask=causal, src_key_padding_mask=tokens == PAD)
        if self.fault == "prints":
            lengths = [int((row != PAD).sum()) for row in tokens]
            hidden = hidden * (max(lengths) / max(lengths))
        out: Tensor = self.head(self.norm(hidden) * (200 if self.fault == "hot-scores" else 1))
        return out


def loss(logits: Tensor, batch: Batch) -> Tensor:
    return functional.cross_entropy(logits.flatten(0, 1), batch[1].flatten(), ignore_index=PAD)


def loss_by_token(logits: Tensor, batch: Batch) -> Tensor:
    """Position by position."""
    total, n = logits.new_zeros(()), 0
    for row in range(logits.shape[0]):
        for place in range(logits.shape[1]):
            target = batch[1][row, place]
            if target != PAD:
                total = total - logits[row, place].log_softmax(0)[target]
                n += 1
    return total / n


COLLATES = {"collate-by-token": collate_by_token, "narrow-tokens": collate_narrow}


def build(fault: str | None) -> Pipeline:
    torch.manual_seed(0)
    model = LanguageModel(fault, norm_first=fault != "post-norm")
    optimizer: Any = lambda parameters: torch.optim.AdamW(parameters, 2e-3)  # noqa: E731
    if fault == "forgets-head":
        optimizer = lambda parameters: torch.optim.AdamW(  # noqa: E731
            [*model.embed.parameters(), *model.body.parameters()], 2e-3
        )
    return Pipeline(
        name="text",
        dataset=lines(),
        collate=COLLATES.get(fault or "", collate),
        model=model,
        loss=loss_by_token if fault == "loss-by-token" else loss,
        optimizer=optimizer,
        batch_size=24,
        sources=("tests.faults.text",),
    )


PATIENT = Patient(
    name="text",
    build=build,
    variants=("post-norm", "dropout", "tied"),
    faults=(
        Fault(name="attends-across", checks=("batch-leak",), stages=("body", "model")),
        Fault(name="number-tokens", checks=("id-as-magnitude",), stages=("number", "model")),
        Fault(name="mean-over-padding", checks=("padding-in-statistics",), stages=("model",)),
        Fault(name="narrow-tokens", checks=("contract-broken",), stages=("collate",)),
        Fault(name="wrapping-key", checks=("integer-overflow",), stages=("model",)),
        Fault(name="root-of-padding", checks=("numerical-pole",), stages=("model",)),
        Fault(name="vanishing", checks=("vanishing-gradient",)),
        Fault(name="collate-by-token", checks=("python-loop",), stages=("collate",)),
        Fault(name="loss-by-token", checks=("python-loop",), stages=("loss",)),
        Fault(name="prints", checks=("host-sync", "python-loop"), stages=("model",)),
        Fault(name="hot-scores", checks=("overconfident-start",), stages=("loss",)),
        Fault(name="forgets-head", checks=("optimizer-misses-parameters",)),
    ),
)
