"""The checks on bounds: each fires on a pipeline that has the fault, and is silent on others."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as f

from icediag.checks import (
    azimuth_seam,
    numerical_pole,
    saturated_output,
    unbounded_output,
    unreachable_range,
)
from icediag.finding import Finding
from icediag.icecube import pipeline as icecube
from icediag.instruments.bounds import record_bounds
from icediag.instruments.recorder.record import record
from icediag.model.network import NetworkConfig
from icediag.pipeline import Domain, Pipeline
from icediag.recording import Recording, Unjudged

CHECKS = (unbounded_output, saturated_output, azimuth_seam, unreachable_range, numerical_pole)
ANGLES = {"azimuth": Domain(0, 2 * math.pi, periodic=True), "zenith": Domain(0, math.pi)}
SMALL = NetworkConfig(d_model=16, n_heads=2, n_layers=1, octaves=2)


def findings(pipeline: Pipeline, **arguments: Any) -> dict[str, list[Finding]]:
    """Findings by name; what was not judged under "not judged"."""
    bounds = record_bounds(pipeline, **arguments)
    recording = Recording(pipeline=pipeline.name, batch_size=bounds.batch_size, bounds=bounds)
    read = Recording.from_json(recording.to_json())
    assert read.to_json() == recording.to_json()  # NaN differs from itself
    found: dict[str, list[Finding]] = {}
    for check in CHECKS:
        answer = check.check(recording)
        if isinstance(answer, Unjudged):
            found.setdefault("not judged", []).append(answer)  # type: ignore[arg-type]
        elif answer:
            found[answer[0].name] = list(answer)
    return found


def small(
    model: nn.Module | Callable[..., Any],
    shape: tuple[int, ...] = (4,),
    outputs: dict[str, Domain] | None = None,
    targets: Callable[[int], Tensor] | None = None,
    shift: float = 0.0,
    loss: Callable[[Any, Any], Tensor] | None = None,
) -> Pipeline:
    """A pipeline of (inputs, targets) samples."""
    torch.manual_seed(0)
    inputs = torch.randn(24, *shape) + shift
    truth = torch.stack([targets(i) for i in range(24)]) if targets else torch.zeros(24, 2)

    def collate(samples: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        return torch.stack([s[0] for s in samples]), torch.stack([s[1] for s in samples])

    return Pipeline(
        name="small",
        dataset=[(inputs[i], truth[i]) for i in range(24)],
        collate=collate,
        model=model,
        forward=lambda model, batch: model(batch[0]),
        loss=loss or (lambda predictions, batch: predictions.square().mean()),
        batch_size=24,
        outputs=outputs or {},
    )


class Lambda(nn.Module):
    """A linear layer, and a function of what it gives."""

    def __init__(self, after: Callable[[Tensor], Tensor], n_in: int = 4, n_out: int = 2) -> None:
        super().__init__()
        self.linear = nn.Linear(n_in, n_out)
        self.after = after

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.after(self.linear(x))
        return out


def angles(i: int) -> Tensor:
    return torch.tensor([2 * math.pi * (i / 24), math.pi * ((7 * i) % 24) / 24])


def squashed(x: Tensor) -> Tensor:
    return torch.stack([math.pi * (1 + x[:, 0].tanh()), math.pi * x[:, 1].sigmoid()], -1)


@pytest.mark.parametrize("head", ["unit_vector", "angles"])
@pytest.mark.parametrize("backend", ["auto", "native"])
def test_the_default_model_is_proved(head: Any, backend: Any) -> None:
    config = replace(SMALL, head=head, backend=backend)
    pipeline = icecube(n_events=8, batch_size=8, config=config)
    record = record_bounds(pipeline)
    assert [(o.column, o.proved) for o in record.outputs] == [("azimuth", True), ("zenith", True)]
    assert not record.unproved and not record.not_judged
    assert findings(pipeline) == {}


def test_the_head_with_bounded_angles_has_a_seam() -> None:
    pipeline = icecube(n_events=8, batch_size=8, config=replace(SMALL, head="bounded_angles"))
    found = findings(pipeline)
    assert set(found) == {"azimuth-seam"}
    (finding,) = found["azimuth-seam"]
    assert finding.evidence["column"] == "azimuth"
    assert finding.evidence["op"] == "aten::tanh"
    assert finding.location is not None and finding.location.file == "icediag/model/heads.py"


def test_the_fault_of_the_case_is_found_with_a_witness() -> None:
    pipeline = icecube(n_events=8, batch_size=8, config=SMALL, faults=("unbounded-output",))
    found = findings(pipeline)
    assert set(found) == {"unbounded-output"}
    assert {x.evidence["column"] for x in found["unbounded-output"]} == {"azimuth", "zenith"}
    for finding in found["unbounded-output"]:
        assert finding.severity == "error"
        low, high = finding.evidence["domain"]
        assert not low <= finding.evidence["value"] <= high
        assert finding.location is not None
        assert finding.location.file == "icediag/model/faults/unbounded_output.py"


@pytest.mark.parametrize("faults", [("normalized-relative",), ("packing-loop",), ("rank-loop",)])
def test_other_faults_leave_the_outputs_proved(faults: tuple[str, ...]) -> None:
    pipeline = icecube(n_events=4, batch_size=4, config=SMALL, faults=faults)
    assert "unbounded-output" not in findings(pipeline)
    assert all(output.proved for output in record_bounds(pipeline).outputs)


def test_no_outputs_is_said_once() -> None:
    found = findings(small(nn.Linear(4, 2)))
    assert set(found) == {"not judged"}
    (note,) = found["not judged"]
    assert isinstance(note, Unjudged)
    assert note.reason == "outputs: no outputs declared"


def test_without_a_record_nothing_is_judged() -> None:
    recording = Recording(pipeline="p", batch_size=1)
    for check in CHECKS:
        answer = check.check(recording)
        assert isinstance(answer, Unjudged)
        assert answer.reason == "bounds were not recorded"


def test_squashed_angles_are_proved() -> None:
    found = findings(small(Lambda(squashed), outputs=ANGLES, targets=angles))
    assert set(found) == {"azimuth-seam"}
    assert found["azimuth-seam"][0].severity == "note"
    assert 0 < found["azimuth-seam"][0].evidence["targets_near_seam"] < 0.2


def test_targets_at_the_seam_make_it_a_warning() -> None:
    near = small(
        Lambda(squashed), outputs=ANGLES, targets=lambda i: torch.tensor([0.1 * (i % 2), 1.0])
    )
    assert findings(near)["azimuth-seam"][0].severity == "warning"


def test_tanh_scaled_wrongly_leaves_the_domain() -> None:
    model = Lambda(lambda x: torch.stack([3 * x[:, 0].tanh(), math.pi * x[:, 1].sigmoid()], -1))
    found = findings(small(model, outputs=ANGLES))
    (finding,) = found["unbounded-output"]
    assert finding.severity == "error"
    assert finding.evidence["column"] == "azimuth"
    assert finding.evidence["value"] < 0


def test_a_witness_is_found_by_the_gradient() -> None:
    # On the batch itself everything is inside.
    model = Lambda(lambda x: 0.1 * x + 1.0)
    found = findings(small(model, outputs=ANGLES))
    assert {x.evidence["how"] for x in found["unbounded-output"]} <= {"ascent", "weights"}
    assert all(x.severity == "error" for x in found["unbounded-output"])


def test_weights_are_as_before_after_the_search() -> None:
    model = Lambda(lambda x: f.layer_norm(x, (2,)) * 0.01 + 1.0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    pipeline = small(model, outputs=ANGLES)
    inputs = [sample[0].clone() for sample in pipeline.dataset]
    record_bounds(pipeline)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(
        torch.equal(a, b[0]) and not b[0].requires_grad
        for a, b in zip(inputs, pipeline.dataset, strict=True)
    )
    assert all(p.grad is None for p in model.parameters())


def test_an_operation_without_a_rule_is_not_proved_nor_blamed() -> None:
    model = Lambda(lambda x: torch.special.bessel_j0(x).abs() * 0.5)
    pipeline = small(model, outputs=ANGLES)
    record = record_bounds(pipeline)
    assert not any(output.proved for output in record.outputs)
    assert [place.op for place in record.unproved] == ["aten::special_bessel_j0"]
    found = findings(pipeline)
    assert "unbounded-output" not in found
    assert any("bessel" in note.reason for note in found["not judged"])  # type: ignore[attr-defined]


def test_a_sigmoid_that_cannot_reach_all_is_an_error_where_targets_lie_there() -> None:
    model = Lambda(
        lambda x: torch.stack([math.pi * (1 + x[:, 0].tanh()), 2 * x[:, 1].sigmoid()], -1)
    )
    found = findings(small(model, outputs=ANGLES, targets=angles))
    (finding,) = found["unreachable-range"]
    assert finding.severity == "error"
    assert finding.evidence["column"] == "zenith"
    assert finding.evidence["reach"] == [0.0, pytest.approx(2.0, abs=1e-5)]
    without = findings(small(model, outputs=ANGLES, targets=lambda i: torch.zeros(3)))
    assert without["unreachable-range"][0].severity == "warning"


def test_a_learned_scale_can_reach_all() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.scale = nn.Linear(4, 2), nn.Parameter(torch.ones(()))

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.scale * self.linear(x).sigmoid()
            return out

    assert "unreachable-range" not in findings(small(Scaled(), outputs=ANGLES))


def test_saturated_angles_far_from_their_targets() -> None:
    model = Lambda(lambda x: squashed(x * 1000))
    found = findings(small(model, outputs=ANGLES, targets=angles))
    assert {x.evidence["column"] for x in found["saturated-output"]} == {"azimuth", "zenith"}
    unknown = findings(small(model, outputs=ANGLES, targets=lambda i: torch.zeros(3)))
    assert "saturated-output" in unknown


class Convolutional(nn.Module):
    """A small convolutional net with batch norm and pooling, ending in a sigmoid."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(1, 4, 3),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(4, 4, 2),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(4, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x)
        return out


class Tokens(nn.Module):
    """Torch's transformer encoder, ending in shares."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(3, 8)
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.encoder(self.embed(x)).mean(1)).softmax(-1)
        return out


@pytest.mark.parametrize(
    ("model", "shape", "outputs"),
    [
        (Convolutional(), (1, 8, 8), {"p": Domain(0, 1)}),
        (Tokens(), (5, 3), {name: Domain(0, 1) for name in "abc"}),
        (nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3), nn.Softmax(-1)), (4,),
         {"classes": Domain(0, 1)}),
        (Lambda(lambda x: torch.atan2(x[:, 0], x[:, 1])), (4,),
         {"angle": Domain(-math.pi, math.pi, periodic=True)}),
        (Lambda(lambda x: f.normalize(x)), (4,), {"x": Domain(-1, 1), "y": Domain(-1, 1)}),
        (Lambda(lambda x: x.exp()), (4,), {"rates": Domain(0, math.inf)}),
    ],
)  # fmt: skip
def test_pipelines_of_others_are_proved_and_clean(
    model: nn.Module, shape: tuple[int, ...], outputs: dict[str, Domain]
) -> None:
    pipeline = small(model, shape, outputs)
    record = record_bounds(pipeline)
    assert all(output.proved for output in record.outputs) and len(record.outputs) == len(outputs)
    assert findings(pipeline) == {}


class OfBytes(nn.Module):
    """One number for each image of bytes."""

    def __init__(self, end: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(1, 4, 3, stride=2), nn.ReLU(), nn.Flatten())
        self.out, self.end = nn.Linear(4 * 3 * 3, 1), end

    def forward(self, bytes_: Tensor) -> Tensor:
        return self.end(self.out(self.net(bytes_[:, None].float() / 128 - 1)))


def test_bytes_of_images_may_be_any_others() -> None:
    def of(end: Callable[[Tensor], Tensor]) -> Pipeline:
        made = small(OfBytes(end), shape=(8, 8), outputs={"p": Domain(-0.5, 0.5)})
        grey = torch.full((8, 8), 128, dtype=torch.uint8)
        return replace(made, dataset=[(grey, torch.zeros(2))] * 24)

    (finding,) = findings(of(lambda x: 3 * x))["unbounded-output"]
    low, high = finding.evidence["bounds"]
    assert low < -0.5 and high > 0.5  # of grey alone it is one number
    assert "unbounded-output" not in findings(of(lambda x: x.tanh() / 2))


class Summed(nn.Module):
    """Rows of each sample, added up."""

    def __init__(self, end: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.rows, self.out, self.end = nn.Linear(3, 8), nn.Linear(8, 1), end

    def forward(self, x: Tensor) -> Tensor:
        rows = torch.nested.to_padded_tensor(self.rows(x).relu(), 0.0)
        return self.end(self.out(rows.sum(1)))


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("layout", [torch.strided, torch.jagged])
def test_through_nested_tensors_nothing_is_proved(
    layout: torch.layout,
) -> None:
    def of(end: Callable[[Tensor], Tensor]) -> dict[str, list[Finding]]:
        torch.manual_seed(0)
        made = replace(
            small(Summed(end), outputs={"p": Domain(0, 1)}),
            dataset=[torch.randn(2 + i % 3, 3) for i in range(8)],
            collate=lambda samples: torch.nested.nested_tensor(list(samples), layout=layout),
            forward=lambda model, batch: model(batch),
        )
        assert record(made).loss is not None
        return findings(made)

    [not_judged] = of(torch.sigmoid)["not judged"]
    assert "nested" in not_judged.reason  # type: ignore[attr-defined]
    [finding] = of(lambda x: 5 * x)["unbounded-output"]
    assert finding.severity == "error" and finding.evidence["row"] is not None


def poles(model: nn.Module, **arguments: Any) -> list[Finding]:
    return findings(small(model, **arguments)).get("numerical-pole", [])


def apart(x: Tensor) -> Tensor:
    """Squared distances to the first row: 0 in the first row, with a slope of 0."""
    return (x - x[:1]).square()


class Pre(nn.Module):
    """A function of the inputs, and a linear layer."""

    def __init__(self, before: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 2)
        self.before = before

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear(self.before(x))
        return out


def test_the_logarithm_of_an_unclamped_input() -> None:
    (finding,) = poles(Pre(lambda x: x.relu().log()))
    assert finding.evidence["op"] == "aten::log"
    assert finding.evidence["value"] == -math.inf
    assert finding.location is not None
    assert finding.location.file.endswith("test_bounds_checks.py")
    assert finding.severity == "error"


def test_a_pole_at_the_end_of_the_range() -> None:
    # On the batch as it is one value is 0 only after the smallest is taken away by a moved row.
    (finding,) = poles(Pre(lambda x: (x - 0.5).log()), shift=0.0)
    assert finding.evidence["op"] == "aten::log"


@pytest.mark.parametrize(
    ("after", "op"),
    [
        (lambda x: apart(x).sqrt(), "aten::sqrt"),
        (lambda x: torch.where(apart(x) > 0, apart(x).sqrt(), 0), "aten::sqrt"),
        (lambda x: (1 - 1e-3 * apart(x)).acos(), "aten::acos"),
        (lambda x: 1 / x.relu(), "aten::reciprocal"),
        (lambda x: x / x.relu(), "aten::div"),
        (lambda x: apart(x) ** 0.5, "aten::pow"),
        (lambda x: (x * 1000).exp(), "aten::exp"),
        (lambda x: torch.hypot(apart(x)[:, :1], apart(x)[:, 1:]), "aten::hypot"),
    ],
)
def test_poles_with_harm(after: Callable[[Tensor], Tensor], op: str) -> None:
    found = poles(Lambda(after))
    assert op in {finding.evidence["op"] for finding in found}


@pytest.mark.parametrize(
    "after",
    [
        lambda x: x.relu().add(1e-6).sqrt(),
        # relu and clamp pass nothing back from where they are flat, not even NaN.
        lambda x: x.relu().sqrt(),
        lambda x: x.clamp(-0.1, 0.1).mul(10).acos(),
        lambda x: torch.where(apart(x) > 0, torch.where(apart(x) > 0, apart(x), 1).sqrt(), 0),
        lambda x: torch.where(x > 0, torch.where(x > 0, x, 1).sqrt(), 0),
        lambda x: x.tanh().mul(0.99).acos(),
        lambda x: x.relu().log1p(),
        lambda x: x / x.norm(dim=1, keepdim=True).clamp_min(1e-6),
        lambda x: torch.linalg.vector_norm(x.relu(), dim=1),
        lambda x: x.relu().clamp_min(1e-3).log(),
        lambda x: x.clamp_max(5).exp(),
        lambda x: torch.where(x.detach() > 0, 0.0, 1.0) * x,
    ],
)
def test_guarded_poles_are_passed_over(after: Callable[[Tensor], Tensor]) -> None:
    assert poles(Lambda(after)) == []


def test_a_root_of_raw_inputs_needs_no_slope() -> None:
    assert poles(Pre(lambda x: x.relu().sqrt())) == []


def test_a_model_that_fails_is_not_judged() -> None:
    def fails(x: Tensor) -> Tensor:
        raise ValueError("no")

    found = findings(small(Lambda(fails), outputs=ANGLES))
    assert set(found) == {"not judged"}


def test_gradients_are_taken_of_few_samples() -> None:
    """A loop over rows costs the square of its rows on the way back: counted, not timed."""
    rows: list[tuple[int, bool]] = []

    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.out = nn.Linear(3, 1)

        def forward(self, x: Tensor) -> Tensor:
            rows.append((len(x), x.requires_grad))
            out: Tensor = self.out(x).tanh()
            return out

    built = Pipeline(
        name="counts",
        dataset=list(torch.randn(40, 3)),
        collate=torch.stack,
        model=Counts(),
        loss=lambda out, batch: out.square().mean(),
        outputs={"x": Domain(-5, 5)},
        batch_size=40,
    )
    record_bounds(built)
    assert not any(asks for _, asks in rows)  # proved: nothing is searched
    rows.clear()
    record_bounds(replace(built, outputs={"x": Domain(-0.999999, 0.999999)}))
    assert {n for n, asks in rows if asks} == {4}
