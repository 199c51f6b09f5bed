"""A small language model: additive causal mask, padding mask, weights shared by both ends."""

import torch
from torch import Tensor, nn

from icediag import Pipeline

LENGTHS = (4, 7, 2, 5, 6, 3)


class TextDataset:
    def __len__(self) -> int:
        return len(LENGTHS)

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        if i >= len(LENGTHS):
            raise IndexError(i)
        generator = torch.Generator().manual_seed(i)
        return {"tokens": torch.randint(1, 20, (LENGTHS[i],), generator=generator)}


def collate(samples: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    tokens = nn.utils.rnn.pad_sequence([s["tokens"] for s in samples], batch_first=True)
    return {"tokens": tokens, "attended": tokens != 0}


class LanguageModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 16)
        layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.out = nn.Linear(16, 20, bias=False)
        self.out.weight = self.embed.weight

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        length = batch["tokens"].shape[1]
        causal = torch.full((length, length), float("-inf")).triu(1)
        absent = torch.zeros(batch["tokens"].shape).masked_fill(~batch["attended"], float("-inf"))
        hidden = self.encoder(self.embed(batch["tokens"]), causal, src_key_padding_mask=absent)
        logits: Tensor = self.out(hidden)
        return logits


def next_token(logits: Tensor, batch: dict[str, Tensor]) -> Tensor:
    return nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), batch["tokens"][:, 1:].flatten(), ignore_index=0
    )


def pipeline() -> Pipeline:
    torch.manual_seed(0)
    return Pipeline(
        name="language",
        dataset=TextDataset(),
        collate=collate,
        model=LanguageModel(),
        loss=next_token,
        batch_size=6,
    )
