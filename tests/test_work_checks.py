"""Padding, copies, squares, repetition, wide types and transfers: named where they cost."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from icediag import Pipeline
from icediag.checks import (
    backward_copies,
    contiguous_copies,
    judge,
    many_transfers,
    padding_waste,
    recomputation,
    superlinear_growth,
    wide_dtype,
)
from icediag.finding import Diagnosis, Finding
from icediag.icecube import pipeline as icecube
from icediag.instruments.examine import examine
from icediag.model.network import NetworkConfig
from icediag.recording import Recording, Unjudged
from icediag.records.work import OperationsRecord

CHECKS = (
    padding_waste,
    backward_copies,
    superlinear_growth,
    recomputation,
    wide_dtype,
    contiguous_copies,
    many_transfers,
)
NEEDS = {"operations", "projection"}
LENGTHS = (3, 1, 5, 2, 4, 2, 7, 4, 6, 9, 3, 8, 5, 2, 7, 6, 4, 3)
WIDTH = 16
TINY = NetworkConfig(d_model=8, n_heads=2, n_layers=1)
Batch = dict[str, Tensor]


def line_of(comment: str) -> int:
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    [found] = [i for i, text in enumerate(lines, 1) if text.endswith(f"# {comment}")]
    return found


def collate(points: list[Tensor]) -> Batch:
    lengths = torch.tensor([len(p) for p in points])
    padded = nn.utils.rnn.pad_sequence(points, batch_first=True)
    return {
        "points": torch.cat(points),
        "lengths": lengths,
        "event": torch.repeat_interleave(torch.arange(len(points)), lengths),
        "padded": padded,
        "padding": torch.arange(padded.shape[1]) >= lengths[:, None],
    }


def pool(rows: Tensor, batch: Batch) -> Tensor:
    return rows.new_zeros(len(batch["lengths"]), WIDTH).index_add(0, batch["event"], rows)


class Net(nn.Module):
    """Gives one number an event; how rows become events is passed in."""

    def __init__(self, handle: Callable[[Any, Tensor, Batch], Any]) -> None:
        super().__init__()
        self.handle = handle
        self.enter = nn.Linear(3, WIDTH)
        self.mix = nn.Linear(WIDTH, WIDTH)
        self.attend = nn.MultiheadAttention(WIDTH, 2, batch_first=True)

    def forward(self, batch: Batch) -> Tensor:
        rows = self.mix(self.enter(batch["points"]).relu())
        out: Tensor = self.handle(self, rows, batch)
        return out.sum(1)


def square(predicted: Tensor, batch: Any) -> Tensor:
    return predicted.square().mean()


def plain(net: Any, rows: Tensor, batch: Batch) -> Tensor:
    return pool(rows, batch)


def made(
    handle: Callable[..., Any] = plain, lengths: tuple[int, ...] = LENGTHS, **changes: Any
) -> Pipeline:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    return Pipeline(
        **{
            "name": "work",
            "dataset": [torch.rand(n, 3, generator=generator) for n in lengths],
            "collate": collate,
            "model": Net(handle),
            "loss": square,
            "batch_size": len(lengths),
            **changes,
        }
    )


def diagnosed(pipeline: Pipeline) -> Diagnosis:
    return judge(examine(pipeline, needs=NEEDS), CHECKS)


def only(diagnosis: Diagnosis, code: str, place: str | None = None) -> Finding:
    assert diagnosis.not_judged == ()
    [finding] = [finding for finding in diagnosis.findings if finding.code == code]
    if place is not None:
        assert finding.location is not None
        assert finding.location.file == "tests/test_work_checks.py"
        assert finding.location.line == line_of(place)
    return finding


def none(diagnosis: Diagnosis, code: str) -> bool:
    return all(finding.code != code for finding in diagnosis.findings)


@pytest.fixture(scope="module")
def healthy() -> Diagnosis:
    return diagnosed(made())


def test_a_plain_network_has_none_of_them(healthy: Diagnosis) -> None:
    assert healthy.findings == () and healthy.not_judged == ()


def test_the_built_in_has_none_of_them() -> None:
    diagnosis = diagnosed(icecube(n_events=8, batch_size=8, config=TINY))
    assert diagnosis.findings == () and diagnosis.not_judged == ()


def write_rows(net: Any, rows: Tensor, batch: Batch) -> Tensor:
    out = torch.zeros(len(rows), WIDTH)
    for i in range(len(rows)):
        out[i] = rows[i] * 1.0  # written
    return pool(out, batch)


def write_once(net: Any, rows: Tensor, batch: Batch) -> Tensor:
    out = torch.zeros(len(rows), WIDTH)
    out[:] = rows
    out[0] = rows[0] * 2
    return pool(out, batch)


def test_each_row_that_is_written_copies_the_whole(healthy: Diagnosis) -> None:
    finding = only(diagnosed(made(write_rows)), "P04", "written")
    assert finding.severity == "warning" and "CopySlices" in finding.evidence["nodes"]
    assert finding.evidence["calls"] == sum(LENGTHS)
    # The last batch is the whole: a copy back and forth of N rows of 16 floats, N times at least.
    assert finding.evidence["bytes"] > 2 * sum(LENGTHS) ** 2 * WIDTH * 4
    assert finding.evidence["forward_bytes"] < finding.evidence["bytes"] / 10
    assert none(diagnosed(made(write_once)), "P04")


def masked_reads(net: Any, rows: Tensor, batch: Batch) -> Tensor:
    n = len(batch["lengths"])
    return torch.stack([rows[batch["event"] == i].sum(0) for i in range(n)])  # read by mask


def test_each_mask_that_is_read_by_fills_the_whole() -> None:
    finding = only(diagnosed(made(masked_reads)), "P04", "read by mask")
    assert finding.severity == "warning" and "index_add" in finding.remedy
    assert finding.evidence["axis"] == "batch"


def all_pairs(net: Any, rows: Tensor, batch: Batch) -> Tensor:
    other = batch["event"][:, None] != batch["event"]  # mask of pairs
    row = rows[None]
    mixed = net.attend(row, row, row, attn_mask=other, need_weights=False)[0]  # all pairs
    return pool(mixed[0], batch)


def padded_pairs(net: Any, rows: Tensor, batch: Batch) -> Tensor:
    slots = net.enter(batch["padded"])
    padding = batch["padding"]
    mixed: Tensor
    mixed, _ = net.attend(slots, slots, slots, key_padding_mask=padding, need_weights=False)
    return mixed.masked_fill(batch["padding"][..., None], 0).sum(1) + pool(rows, batch)


def test_pairs_over_the_batch_are_quadratic_and_within_events_are_not() -> None:
    diagnosis = diagnosed(made(all_pairs))
    worst, *others = [finding for finding in diagnosis.findings if finding.code == "P05"]
    assert worst.severity == "warning" and worst.evidence["axis"] == "n_points*n_points"
    assert worst.location is not None and worst.location.line == line_of("all pairs")
    assert all(other.evidence["share"] <= worst.evidence["share"] for other in others)
    assert none(diagnosed(made(padded_pairs)), "P05")


def test_pairs_of_samples_are_a_note() -> None:
    def contrastive(predicted: Tensor, batch: Batch) -> Tensor:
        vectors = torch.stack([predicted, predicted * 2], 1)
        scores = vectors @ vectors.T
        return functional.cross_entropy(scores, torch.arange(len(scores)))

    finding = only(diagnosed(made(loss=contrastive)), "P05")
    assert finding.severity == "note" and finding.evidence["axis"] == "batch*batch"


#: Most events short, some long: 8 parts by length hold few empty slots.
HEAVY = (3, 2, 4, 3, 2, 60, 4, 3, 2, 4, 3, 2, 3, 4, 2, 3, 4, 2, 3, 55)


def test_padding_to_a_long_event() -> None:
    recording = examine(made(padded_pairs, HEAVY), needs=NEEDS)
    finding = only(judge(recording, CHECKS), "P03")
    evidence = finding.evidence
    assert finding.severity == "warning"
    assert evidence["slots"] == len(HEAVY) * max(HEAVY) and evidence["used"] == sum(HEAVY)
    assert evidence["useful"] == pytest.approx(sum(HEAVY) / len(HEAVY) / max(HEAVY))
    # Slow twin: sort, cut into eight, pad each.
    ordered, n = sorted(HEAVY), len(HEAVY)
    cuts = [len(part) for part in torch.arange(n).tensor_split(8)]
    slots, at = 0, 0
    for size in cuts:
        slots += size * ordered[at + size - 1]
        at += size
    assert evidence["bucketed"] == pytest.approx(sum(HEAVY) / slots)
    assert evidence["bucketed"] > 2 * evidence["useful"]
    assert none(diagnosed(made(padded_pairs)), "P03")


def collate_to_64(points: list[Tensor]) -> Batch:
    batch = collate(points)
    padded = torch.zeros(len(points), 64, 3)
    padded[:, : batch["padded"].shape[1]] = batch["padded"]
    padding = torch.arange(64) >= batch["lengths"][:, None]
    return {**batch, "padded": padded, "padding": padding}


def test_padding_to_a_size_that_is_always_the_same() -> None:
    finding = only(diagnosed(made(padded_pairs, collate=collate_to_64)), "P03")
    assert finding.severity == "warning" and finding.evidence["padded_to"] == 64
    assert finding.evidence["useful"] == pytest.approx(sum(LENGTHS) / len(LENGTHS) / 64)


class OnSlots(nn.Module):
    """Attention within slots, of which lengths tell which are empty."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(3, WIDTH)
        self.attend = nn.MultiheadAttention(WIDTH, 2, batch_first=True)

    def forward(self, batch: Batch) -> Tensor:
        slots = self.enter(batch["slots"])
        empty = torch.arange(slots.shape[1]) >= batch["lengths"][:, None]
        mixed, _ = self.attend(slots, slots, slots, key_padding_mask=empty, need_weights=False)
        filled: Tensor = mixed.masked_fill(empty[..., None], 0)
        return filled.sum((1, 2))


@pytest.mark.parametrize(("size", "alarms"), [(64, True), (12, False)])
def test_padding_that_only_lengths_tell(size: int, alarms: bool) -> None:
    # The longest is cut to what there is, and no other comes near it.
    sizes = (7, 6, 70, 5, 8, 7, 6, 7, 6, 8, 5, 6, 7, 6)

    def collate_lengths(points: list[Tensor]) -> Batch:
        slots = torch.zeros(len(points), size, 3)
        for row, sample in zip(slots, points, strict=True):
            row[: len(sample)] = sample[:size]
        lengths = torch.tensor([min(len(sample), size) for sample in points])
        return {"slots": slots, "lengths": lengths}

    built = made(lengths=sizes, collate=collate_lengths, model=OnSlots())
    recording = examine(built, needs=NEEDS)
    [padding] = recording.padding
    used = sum(min(n, size) for n in sizes)
    assert (padding.slots, padding.used) == (len(sizes) * size, used)
    diagnosis = judge(recording, CHECKS)
    if alarms:
        finding = only(diagnosis, "P03")
        assert finding.severity == "warning" and finding.evidence["padded_to"] == size
        assert finding.evidence["useful"] == pytest.approx(used / len(sizes) / size)
    else:
        assert none(diagnosis, "P03")


def wide(net: Any, rows: Tensor, batch: Batch) -> Tensor:
    scaled = rows * torch.linspace(0, 1, WIDTH, dtype=torch.float64)  # wide
    for _ in range(10):
        scaled = (scaled + 1).log()
    return pool(scaled.float(), batch)


def test_float64_beside_float32() -> None:
    finding = only(diagnosed(made(wide)), "P07", "wide")
    assert finding.severity == "warning" and 0.1 < finding.evidence["share"] < 0.9


def test_float64_throughout_and_in_the_batch_alone_are_notes() -> None:
    doubles = list(torch.rand(18, 3, dtype=torch.float64))
    whole = made(dataset=doubles, collate=torch.stack, model=nn.Linear(3, 1).double(), loss=square)
    finding = only(diagnosed(whole), "P07")
    assert finding.severity == "note" and "whole network" in finding.message

    class Casts(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.float())

    cast = made(dataset=doubles, collate=torch.stack, model=Casts(3, 8), loss=square)
    finding = only(diagnosed(cast), "P07")
    assert (finding.severity, finding.stage) == ("note", "collate")
    assert finding.evidence["float64_bytes"] == 18 * 3 * 8


def twice(net: Any, rows: Tensor, batch: Batch) -> Tensor:
    again = net.mix(net.enter(batch["points"]).relu())  # again
    return pool(rows + 0.0 * again, batch)


def test_the_same_work_twice() -> None:
    finding = only(diagnosed(made(twice)), "P06", "again")
    assert finding.severity == "warning"
    # Both layers of three to five products are done twice; the attention is not used.
    assert finding.evidence["flops_share"] > 0.15
    assert {item["op"] for item in finding.evidence["again"]} >= {"addmm", "relu"}


def turned(net: Any, rows: Tensor, batch: Batch) -> Tensor:
    for _ in range(20):
        rows = rows.t().contiguous().t().contiguous()  # turned
    return pool(rows, batch)


def test_copies_into_another_order() -> None:
    finding = only(diagnosed(made(turned)), "P08", "turned")
    assert finding.severity == "note" and finding.evidence["share"] > 0.5
    assert finding.evidence["copies"] >= 20


def constants(net: Any, rows: Tensor, batch: Batch) -> Tensor:
    for i in range(10):
        rows = rows * torch.tensor([1.0 + i] * WIDTH)  # constants
    return pool(rows, batch)


def in_pieces(points: list[Tensor]) -> list[Tensor]:
    return points


class OfPieces(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(3, 4)

    def forward(self, pieces: list[Tensor]) -> Tensor:
        out: Tensor = self.enter(torch.cat(pieces))
        return out


def test_tensors_from_numbers_and_batches_in_pieces() -> None:
    finding = only(diagnosed(made(constants)), "P09", "constants")
    assert finding.severity == "note" and finding.evidence["made"] == 10
    pieces = made(collate=in_pieces, model=OfPieces(), lengths=LENGTHS * 4)
    finding = only(diagnosed(pieces), "P09")
    assert (finding.severity, finding.stage) == ("warning", "collate")
    assert finding.evidence["tensors"] == 4 * len(LENGTHS)


def test_what_was_not_counted_is_not_judged() -> None:
    empty = Recording(pipeline="p", batch_size=1, operations=OperationsRecord(batch_size=1))
    for check in CHECKS:
        recording = examine(made(), needs=set()) if check is padding_waste else empty
        assert recording.projection is None
        if "projection" in check.NEEDS:
            assert judge(recording, [check]).findings == ()
        else:
            assert isinstance(check.check(recording), Unjudged)
