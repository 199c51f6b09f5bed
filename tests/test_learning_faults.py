"""Faults of learning are found, in our pipeline and in others; healthy ones raise no alarm."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from icediag import Pipeline
from icediag.checks import CHECKS, judge, needs_of
from icediag.finding import SEVERITIES, Diagnosis
from icediag.icecube import pipeline as icecube
from icediag.instruments.examine import examine
from icediag.instruments.gradient_flow.run import record_gradients
from icediag.instruments.overfit.run import record_overfit
from icediag.model.network import NetworkConfig
from icediag.recording import Recording
from tests.data_faults import DATA_FAULTS, PLACES
from tests.faults.learning import family_of
from tests.healthy_learning import HEALTHY, of
from tests.learning_faults import FAULTS, SITES, LearningFault, Site
from tests.pipelines import deepsets, graphs, images, language, sequences

CASES = [
    pytest.param(
        fault,
        site,
        id=f"{site.name}-{fault.name}",
        # Where training is needed on the larger pipelines it takes a while.
        marks=[pytest.mark.slow]
        if fault.code[0] == "L" and site.name in ("icecube", "language")
        else [],
    )
    for site in SITES
    for fault in FAULTS
    if not fault.only or site.name in fault.only
]


#: Quick ones, of what nothing else is tested by. Of the others each is made in one place, in turn:
#: the larger built-in one where there is no other; all of them in all places are
#: `python -m tests.faults.score --learning`.
QUICK = {
    ("targets-at-random", "images"),
    ("targets-at-random", "sequences"),
    ("rolled", "sequences"),
    ("one-truth", "sequences"),
    ("itself-for-truth", "images"),
}
DATA_CASES = [
    pytest.param(
        fault,
        site,
        id=f"{site.name}-{fault.name}",
        marks=[] if (fault.name, site.name) in QUICK else [pytest.mark.slow],
    )
    for number, fault in enumerate(DATA_FAULTS)
    for places in [[site for site in PLACES if not fault.only or site.name in fault.only]]
    for smaller in [[site for site in places if site.name != "icecube"] or places]
    for site in places
    if (fault.name, site.name) in QUICK or site is smaller[number % len(smaller)]
]


def diagnose(pipeline: Pipeline, letters: str = "LG") -> Diagnosis:
    recording = Recording(
        pipeline=pipeline.name,
        batch_size=8,
        overfit=record_overfit(pipeline) if "L" in letters else None,
        gradients=record_gradients(pipeline) if "G" in letters else None,
    )
    return judge(recording, [check for check in CHECKS if check.CODE[0] in letters])


@pytest.mark.parametrize(("fault", "site"), CASES)
def test_a_fault_is_found_at_its_stage(fault: LearningFault, site: Site) -> None:
    torch.manual_seed(0)
    found_at_its_stage(diagnose(fault.strike(site.make(), site), fault.code[0]), fault, site)


@pytest.mark.parametrize(("fault", "site"), DATA_CASES)
def test_a_fault_of_loss_batches_or_samples_is_found(fault: LearningFault, site: Site) -> None:
    torch.manual_seed(0)
    checks = family_of(fault.code)
    recording = examine(fault.strike(site.make(), site), needs=needs_of(checks))
    found_at_its_stage(judge(recording, checks), fault, site)


def found_at_its_stage(diagnosis: Diagnosis, fault: LearningFault, site: Site) -> None:
    bar = SEVERITIES.index(fault.severity)
    hits = [
        finding
        for finding in diagnosis.findings
        if finding.code in fault.code.split() and SEVERITIES.index(finding.severity) <= bar
    ]
    assert hits, [(f.code, f.severity, f.stage, f.message) for f in diagnosis.findings]
    if fault.stage is not None:
        where = fault.stage(site)
        assert any(f.stage == where or f.stage.startswith(f"{where}.") for f in hits), hits


def test_there_are_enough_of_them() -> None:
    assert len({fault.name for fault in FAULTS}) >= 30
    for site in SITES:
        assert sum(not f.only or site.name in f.only for f in FAULTS) >= 30


OURS: tuple[Callable[[], Pipeline], ...] = (
    deepsets.pipeline,
    graphs.pipeline,
    images.pipeline,
    language.pipeline,
    sequences.pipeline,
)


@pytest.mark.parametrize("make", [*HEALTHY, *OURS], ids=range(len(HEALTHY) + len(OURS)))
@pytest.mark.parametrize("letters", ["G", pytest.param("LG", marks=pytest.mark.slow)])
def test_healthy_pipelines_raise_no_alarm(make: Callable[[], Pipeline], letters: str) -> None:
    torch.manual_seed(0)
    diagnosis = diagnose(make(), letters)
    assert not diagnosis.at_least("warning"), diagnosis.findings
    # Nothing went by unseen either.
    wanted = {"no-gradient"} | ({"does-not-learn"} if "L" in letters else set())
    assert wanted <= set(diagnosis.checks)
    assert not diagnosis.not_judged


@pytest.mark.parametrize("rounded", [False, True])
def test_weights_without_a_gradient_in_a_step_are_not_lost(*, rounded: bool) -> None:
    """Each event has two features of 64 of its own: most weights have no gradient in a batch."""
    dtype = torch.bfloat16 if rounded else torch.float32
    torch.manual_seed(0)
    x = torch.zeros(32, 64)
    x[torch.arange(32), 2 * torch.arange(32)] = 1.0
    x[torch.arange(32), 2 * torch.arange(32) + 1] = torch.randn(32)
    net = nn.Sequential(nn.Linear(64, 8), nn.Tanh(), nn.Linear(8, 1)).to(dtype)
    made = of(
        net,
        x.to(dtype),
        torch.randn(32, 1).to(dtype),
        nn.functional.mse_loss,
        optimizer=lambda parameters: torch.optim.SGD(parameters, 1e-4 if rounded else 1e-2),
    )
    record = record_gradients(made)
    first = next(p for p in record.parameters if p.name == "0.weight")
    assert first.zeros < 0.1  # over all batches every weight has one
    found = [f for f in diagnose(made, "G").findings if f.code == "G07"]
    if not rounded:
        assert first.lost == 0 and not found
    else:
        assert first.lost > 0.1


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(0, 20, 3))  # all of them: `make sweep`
def test_the_default_model_learns_a_batch_by_heart(seed: int) -> None:
    pipeline = icecube(n_events=16, batch_size=16, seed=seed)
    record = record_overfit(pipeline, seed=seed)
    assert record.batch is not None and record.batch.verdict == "learns"
    assert not diagnose(pipeline, "G").at_least("warning")


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    [
        NetworkConfig(head="bounded_angles"),
        NetworkConfig(head="angles"),
        NetworkConfig(d_model=8, n_heads=1, n_layers=1),
        NetworkConfig(d_model=16, n_heads=2, n_layers=1),
        NetworkConfig(d_model=32, n_heads=2, n_layers=2),
        NetworkConfig(d_model=64, n_heads=4, n_layers=3),
        NetworkConfig(d_model=192, n_heads=6, n_layers=4),
        NetworkConfig(d_model=128, n_heads=8, n_layers=6),
        NetworkConfig(backend="native", dropout=0.1),
    ],
    ids=str,
)
def test_heads_sizes_and_backends_raise_no_alarm(config: NetworkConfig) -> None:
    for seed in range(2):
        diagnosis = diagnose(icecube(n_events=16, batch_size=16, seed=seed, config=config))
        assert not diagnosis.at_least("warning"), diagnosis.findings
