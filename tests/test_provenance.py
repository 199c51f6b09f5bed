"""What reached a stage: recognised to rounding, or unknown."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from icediag import Pipeline, Raw
from icediag.checks import judge, normalized_relative, normalized_weights
from icediag.icecube import pipeline
from icediag.instruments.provenance.origins import index_tensors, raw_columns
from icediag.instruments.provenance.recognise import recognise, round_off
from icediag.instruments.provenance.run import record_origins
from icediag.instruments.recorder.record import record
from icediag.recording import Recording
from icediag.records.provenance import Origin, ProvenanceRecord

EPS = float(np.finfo(np.float32).eps)
RNG = np.random.default_rng(0)
N = 3000
TIME = RNG.integers(5_700, 30_000, N).astype(np.float32)
CHARGE = (0.025 + 0.05 * RNG.integers(0, 200, N)).astype(np.float32)
FLAG = (RNG.random(N) < 0.3).astype(np.float32)
DOM = RNG.integers(0, 1200, N)
EVENT = DOM // 40
ORDER = RNG.permutation(N)
RAW = {name: x.astype(np.float64) for name, x in (("t", TIME), ("q", CHARGE), ("aux", FLAG))}
INDICES = {"dom": DOM, "event": EVENT, "order": ORDER}


def seen(values: Any, eps: float = EPS) -> Origin | None:
    return recognise(np.asarray(values, np.float64), eps, RAW, INDICES)


def formula(values: Any, eps: float = EPS) -> str | None:
    origin = seen(values, eps)
    return origin.formula if origin else None


def by_group(values: Any, group: Any, reduce: Callable[[Any], Any]) -> Any:
    """A plain twin of scatter and gather."""
    out = np.zeros(len(values), np.float64)
    for g in np.unique(group):
        out[group == g] = reduce(np.asarray(values, np.float64)[group == g])
    return out


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (TIME, "t"),
        (FLAG, "aux"),
        ((TIME - np.float32(1e4)) / np.float32(3e4), "(t - 10000) / 30000"),
        (TIME / np.float32(500), "t / 500"),
        (TIME * np.float32(2), "2 * t"),
        (np.float32(1) - CHARGE, "-1 * (q - 1)"),
        (np.log10(CHARGE) / np.float32(3), "log10(q) / 3"),
        (np.log10(CHARGE + np.float32(0.1)), "log10(q + 0.1)"),
        (np.log1p(CHARGE), "ln(q + 1)"),
        (TIME[ORDER], "t[order]"),
        (TIME - by_group(TIME, DOM, np.min), "t, shifted in each dom"),
        (
            np.clip((TIME - np.float32(1e4)) / np.float32(3e4), -0.1, 0.5),
            "(t - 10000) / 30000, clipped to -0.1..0.5",
        ),
    ],
)
def test_known_maps(values: Any, expected: str) -> None:
    assert formula(values) == expected


def test_a_scaled_difference_keeps_its_scale() -> None:
    scaled = ((TIME - np.float32(1e4)) / np.float32(3e4)).astype(np.float64)
    origin = seen((scaled - by_group(scaled, DOM, np.min)).astype(np.float32))
    assert origin is not None
    assert (origin.map, origin.group) == ("shifted by group", "dom")
    assert origin.slope == pytest.approx(1 / 3e4, rel=1e-5)


def test_standardised_in_each_event() -> None:
    apart = TIME - by_group(TIME, EVENT, np.mean)
    origin = seen((apart / by_group(TIME, EVENT, np.std)).astype(np.float32))
    assert origin is not None
    assert (origin.column, origin.map, origin.group) == ("t", "scaled by group", "event")


@pytest.mark.parametrize(("dtype", "eps"), [(torch.bfloat16, 2**-7), (torch.float16, 2**-10)])
def test_cast_to_fewer_bits(dtype: torch.dtype, eps: float) -> None:
    origin = seen(torch.from_numpy(TIME).to(dtype).double().numpy(), eps)
    assert origin is not None
    assert (origin.column, origin.map) == ("t", "cast")


@pytest.mark.parametrize(
    "values",
    [
        RNG.normal(size=N),
        TIME * CHARGE,
        np.sqrt(CHARGE),
        np.tanh((TIME - np.float32(1e4)) / np.float32(3e4)),
        TIME + RNG.normal(size=N),
        np.full(N, 3.0),
        2 * FLAG - 1,  # any two values are an affine map of any other two
        np.where(np.arange(N) == 7, np.nan, TIME),
        TIME[:100],
    ],
)
def test_what_is_none_of_these_is_unknown(values: Any) -> None:
    assert seen(values) is None


@given(
    shift=st.integers(-20_000, 20_000),
    scale=st.sampled_from([0.001, 0.5, 3.0, 250.0, 30_000.0, -7.0]),
)
def test_any_affine_map_is_recovered(shift: int, scale: float) -> None:
    values = ((TIME - np.float32(shift)) / np.float32(scale)).astype(np.float32)
    origin = seen(values)
    assert origin is not None and origin.column == "t"
    predicted = origin.slope * RAW["t"] + origin.offset
    assert np.abs(predicted - values).max() <= max(origin.tolerance, 0.0) + 1e-30
    if shift or scale != 1:
        assert origin.slope == pytest.approx(1 / scale, rel=1e-4)


@given(st.floats(1e-6, 1e6))
def test_round_off_is_near(value: float) -> None:
    assert abs(round_off(value) - value) <= 3e-6 * value
    assert round_off(30000.0001) == 30000


def provenance(*faults: str) -> ProvenanceRecord:
    return record_origins(pipeline(n_events=24, batch_size=24, faults=faults))


def reached(found: ProvenanceRecord, stage: str, path: str) -> str | None:
    [only] = [o for o in found.origins if (o.stage, o.role, o.path) == (stage, "in", path)]
    return only.origin.formula if only.origin else None


def recorded(found: ProvenanceRecord) -> Recording:
    return Recording(pipeline="x", batch_size=24, provenance=found)


def test_the_default_network_gets_what_it_declares() -> None:
    found = provenance()
    assert reached(found, "relative_encoder", "times") == "time"
    assert reached(found, "relative_encoder", "charges") == "charge"
    assert reached(found, "dom_encoder", "weights") == "charge"
    # A floor that only a charge of 0 would meet is found by probing with one.
    outputs = [o for o in found.origins if (o.stage, o.role) == ("normalizer", "out")]
    assert [o.origin.formula for o in outputs if o.origin][:2] == [
        "(time - 10000) / 30000",
        "log10(max(charge, 0.01)) / 3",
    ]
    assert [contract.reached for contract in found.contracts] == [True] * len(found.contracts)
    assert [contract.pools for contract in found.contracts].count(True) == 1
    for check in (normalized_relative, normalized_weights):
        assert check.check(recorded(found)) == ()


def test_the_case_is_named_with_its_constants() -> None:
    found = provenance("normalized-relative", "normalized-charge-weights")
    relative = normalized_relative.check(recorded(found))
    assert isinstance(relative, tuple)
    assert [finding.evidence["map"] for finding in relative] == [
        "(time - 10000) / 30000",
        "log10(charge + 1e-08) / 3",
    ]
    times, charges = relative
    assert "a difference of 1 ns arrives as 3.33e-05, and its spread" in times.message
    assert "a factor of 2 arrives as a difference of 0.1, and its spread" in charges.message
    assert {finding.stage for finding in relative} == {"relative_encoder"}
    assert all(f.location and f.location.file.endswith("relative.py") for f in relative)
    [weights] = normalized_weights.check(recorded(found))  # type: ignore[misc]
    assert weights.stage == "dom_encoder"
    assert weights.evidence["map"] == "log10(charge + 1e-08) / 3"
    assert 0.1 < weights.evidence["negative_share"] < 0.9


def test_without_provenance_nothing_is_said() -> None:
    bare = record(pipeline(n_events=8, batch_size=8))
    names = {f.name for f in judge(bare).findings} | {u.name for u in judge(bare).not_judged}
    assert not names & {"normalized-relative", "normalized-weights"}


class Difference(nn.Module):
    """Of another style: a stage that is to work on raw seconds."""

    def forward(self, seconds: Tensor, owner: Tensor, n: int) -> Tensor:
        first = torch.full((n,), torch.inf).scatter_reduce(0, owner, seconds, "amin")
        return seconds - first[owner]


class Net(nn.Module):
    def __init__(self, prepare: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.prepare = prepare
        self.difference = Difference()
        self.out = nn.Linear(1, 1)

    def forward(self, batch: dict[str, Any]) -> Tensor:
        raw = batch["table"][:, 1]
        apart = self.difference(self.prepare(raw), batch["owner"], batch["n"])
        total: Tensor = self.out(apart[:, None]).sum()
        return total


def other(prepare: Callable[[Tensor], Tensor]) -> Pipeline:
    generator = torch.manual_seed(0)
    samples = [torch.rand(n, 2, generator=generator) * 100 for n in (5, 9, 1, 30, 12)]

    def collate(items: list[Tensor]) -> dict[str, Any]:
        owner = torch.cat([torch.full((len(x),), i) for i, x in enumerate(items)])
        return {"table": torch.cat(items), "owner": owner, "n": len(items)}

    return Pipeline(
        name="other",
        dataset=samples,
        collate=collate,
        model=Net(prepare),
        loss=lambda prediction, batch: prediction.square(),
        raw={"seconds": lambda batch: batch["table"][:, 1]},
        contracts={f"{__name__}:Difference": {"seconds": Raw("seconds", unit="s")}},
        batch_size=5,
    )


def test_a_pipeline_of_another_style() -> None:
    right = recorded(record_origins(other(lambda x: x)))
    assert normalized_relative.check(right) == ()
    wrong = recorded(record_origins(other(lambda x: (x - 50) / 20)))
    [finding] = normalized_relative.check(wrong)  # type: ignore[misc]
    assert (finding.stage, finding.evidence["map"]) == ("difference", "(seconds - 50) / 20")
    unknown = normalized_relative.check(recorded(record_origins(other(torch.tanh))))
    assert not isinstance(unknown, tuple)
    assert "seconds of" in unknown.reason


def test_without_declared_columns_the_batch_gives_them() -> None:
    bare = replace(other(lambda x: x / 10), raw={}, contracts={})
    batch = bare.collate(bare.dataset)
    assert set(raw_columns(bare, batch)) == {"table[0]", "table[1]"}
    assert set(index_tensors(batch)) == {"owner"}
    assert reached(record_origins(bare), "difference", "seconds") == "table[1] / 10"


def test_nothing_is_left_behind() -> None:
    built = pipeline(n_events=8, batch_size=8, faults=("normalized-relative",))
    before = {name: value.clone() for name, value in built.model.state_dict().items()}
    first = built.dataset[0].pulse_features.clone()
    state = torch.get_rng_state()
    record_origins(built)
    assert torch.equal(torch.get_rng_state(), state)
    # Probing sets a charge to 0, in the batch alone.
    assert torch.equal(built.dataset[0].pulse_features, first)
    after = built.model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
