"""Directions, heads and losses: domains, seams, poles, and closed forms in plain floats."""

import math

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor, nn

from icediag.model.directions import (
    TWO_PI,
    angle_between,
    to_angles,
    to_unit_vector,
    wrap_azimuth,
)
from icediag.model.heads import HEADS, MIN_KAPPA, HeadName, Prediction, UnitVectorHead
from icediag.model.losses import (
    BASELINES,
    LOSSES,
    Loss,
    arccos_error,
    competition_metric,
    log_sinh_over,
    mean_angular_error,
    von_mises_fisher_nll,
)

FLOAT32 = st.floats(width=32, allow_nan=False, allow_infinity=False)
AZIMUTHS = st.floats(0, TWO_PI, width=64)
ZENITHS = st.floats(0, math.pi, width=64)
KAPPAS = [1e-6, 1e-3, 0.011, 0.013, 0.02, 0.1, 0.499, 0.5, 0.65, 1.0, 3.0, 10.0, 100.0, 1e4, 1e5]
every_head = pytest.mark.parametrize("name", HEADS)


def d(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def towards(direction: Tensor, kappa: Tensor | None = None) -> Prediction:
    azimuth, zenith = to_angles(direction)
    return Prediction(azimuth=azimuth, zenith=zenith, direction=direction, kappa=kappa)


def random_angles(n: int, seed: int = 0) -> Tensor:
    rng = np.random.default_rng(seed)
    angles = np.stack([rng.uniform(0, TWO_PI, n), np.arccos(rng.uniform(-1, 1, n))], axis=1)
    return torch.from_numpy(angles)


class TestDirections:
    @pytest.mark.parametrize(
        ("azimuth", "zenith", "vector"),
        [
            (0, 0, (0, 0, 1)),
            (1, math.pi, (0, 0, -1)),
            (0, math.pi / 2, (1, 0, 0)),
            (math.pi / 2, math.pi / 2, (0, 1, 0)),
            (math.pi, math.pi / 2, (-1, 0, 0)),
            (3 * math.pi / 2, math.pi / 2, (0, -1, 0)),
            (math.pi / 4, math.pi / 4, (0.5, 0.5, math.sqrt(0.5))),
        ],
    )
    def test_the_axes(
        self, azimuth: float, zenith: float, vector: tuple[float, float, float]
    ) -> None:
        got = to_unit_vector(d(azimuth), d(zenith))
        torch.testing.assert_close(got, d(*vector)[None])

    @given(azimuth=AZIMUTHS, zenith=ZENITHS, length=st.floats(1e-3, 1e3))
    def test_angles_come_back(self, azimuth: float, zenith: float, length: float) -> None:
        vector = length * to_unit_vector(d(azimuth), d(zenith))
        azimuth_too, zenith_too = to_angles(vector)
        assert zenith_too.item() == pytest.approx(zenith, abs=1e-15 * 8)
        # Near a pole the azimuth matters less: what counts is the way on the sphere.
        gap = math.remainder(azimuth_too.item() - azimuth, TWO_PI)
        assert abs(gap) * math.sin(zenith) < 1e-14

    def test_zenith_keeps_its_precision_near_the_poles(self) -> None:
        # arccos(z) of these in float32 is 0 or 3.5e-4 off.
        for tiny in (1e-4, 1e-6, 1e-12):
            _, zenith = to_angles(torch.tensor([[tiny, 0, 1.0], [0, tiny, -1.0]]))
            assert zenith[0].item() == pytest.approx(tiny, rel=1e-6)
            assert zenith[1].item() == pytest.approx(math.pi - tiny, rel=1e-6)

    @example(-1e-12)
    @example(-1e-30)
    @example(float(np.float32(TWO_PI)))
    @example(float(np.nextafter(np.float32(TWO_PI), np.float32(7))))
    @example(float(np.nextafter(np.float32(TWO_PI), np.float32(0))))
    @example(-float(np.float32(TWO_PI)))
    @given(FLOAT32)
    def test_azimuth_is_wrapped_into_its_domain_also_by_rounding(self, azimuth: float) -> None:
        for dtype in (torch.float32, torch.float64):
            wrapped = wrap_azimuth(torch.tensor([azimuth], dtype=dtype)).item()
            assert 0 <= wrapped < TWO_PI
            if abs(azimuth) < 100:
                gap = math.remainder(wrapped - azimuth, TWO_PI)
                assert abs(gap) < (1e-5 if dtype == torch.float32 else 1e-13)

    def test_azimuth_has_no_seam(self) -> None:
        azimuth, _ = to_angles(torch.tensor([[1, 1e-4, 0], [1, -1e-4, 0], [1, -1e-12, 0]]))
        torch.testing.assert_close(azimuth[:2].double(), d(1e-4, TWO_PI - 1e-4))
        assert azimuth[2].item() == 0
        both = to_unit_vector(d(1e-4, TWO_PI - 1e-4), d(math.pi / 2, math.pi / 2))
        assert angle_between(both[:1], both[1:]).item() == pytest.approx(2e-4, rel=1e-9)

    def test_angles_of_axis_and_zero_have_finite_gradients(self) -> None:
        vectors = torch.tensor([[0, 0, 1.0], [0, 0, -2.0], [0, 0, 0]], requires_grad=True)
        azimuth, zenith = to_angles(vectors)
        assert azimuth.tolist() == [0, 0, 0]
        torch.testing.assert_close(zenith, torch.tensor([0, math.pi, 0]))
        (gradient,) = torch.autograd.grad(azimuth.sum() + zenith.sum(), vectors)
        assert gradient.isfinite().all()

    def test_gradients_of_angles_agree_with_differences(self) -> None:
        vectors = torch.from_numpy(np.random.default_rng(0).normal(size=(5, 3))).requires_grad_()
        assert torch.autograd.gradcheck(to_angles, [vectors])
        angles = random_angles(5).unbind(1)
        assert torch.autograd.gradcheck(to_unit_vector, [x.requires_grad_() for x in angles])

    @given(angle=st.one_of(st.floats(0, math.pi), st.floats(0, 1e-6)), seed=st.integers(0, 99))
    def test_the_angle_is_exact_from_0_to_pi(self, angle: float, seed: int) -> None:
        rng = np.random.default_rng(seed)
        one, other = np.linalg.qr(rng.normal(size=(3, 2)))[0].T
        turned = math.cos(angle) * one + math.sin(angle) * other
        got = angle_between(torch.from_numpy(one[None]), torch.from_numpy(turned[None])).item()
        assert got == pytest.approx(angle, abs=1e-15)


class TestPrediction:
    def test_shapes_are_checked(self) -> None:
        direction, two, three = torch.zeros(2, 3), torch.zeros(2), torch.zeros(3)
        Prediction(azimuth=two, zenith=two, direction=direction)
        with pytest.raises(ValueError, match="Prediction.azimuth: expected shape .2,., got .3,."):
            Prediction(azimuth=three, zenith=two, direction=direction)
        with pytest.raises(ValueError, match="Prediction.zenith: expected shape"):
            Prediction(azimuth=two, zenith=torch.zeros(2, 1), direction=direction)


def head_on(name: HeadName, raw: Tensor) -> Prediction:
    """A head whose linear layer gives `raw`, in which gradients end."""
    head = HEADS[name](1)
    linear = next(m for m in head.children() if isinstance(m, nn.Linear))
    outputs = linear.out_features

    class Given(nn.Module):
        def forward(self, event: Tensor) -> Tensor:
            return raw[:, :outputs]

    (child,) = (key for key, module in head.named_children() if module is linear)
    setattr(head, child, Given())
    prediction: Prediction = head(torch.zeros(raw.shape[0], 1))
    return prediction


EXTREMES = [0.0, 1.0, -1.0, 1e6, -1e6, 1e-6, -1e-6, 1e-20, -1e-20, 17.0, -17.0, math.pi, -math.pi]


class TestHeads:
    @every_head
    def test_angles_are_in_their_domains_for_extreme_inputs(self, name: HeadName) -> None:
        raw = torch.cartesian_prod(*3 * [torch.tensor(EXTREMES)])
        prediction = head_on(name, raw)
        azimuth, zenith = prediction.azimuth, prediction.zenith
        assert azimuth.dtype == zenith.dtype == torch.float32
        assert all(0 <= a < TWO_PI for a in azimuth.tolist())
        # The pole itself is a direction: float32's pi is 9e-8 above it.
        assert all(0 <= z <= float(np.float32(math.pi)) for z in zenith.tolist())
        # They are not squashed into a corner either.
        assert azimuth.max() > 6
        assert zenith.min() < 0.1
        assert zenith.max() > 3.1
        # The angles name the direction. A vector of length 0 has none.
        length = torch.linalg.vector_norm(prediction.direction, dim=1)
        sound = torch.ones_like(length, dtype=torch.bool)
        if name == "unit_vector":
            sound = torch.linalg.vector_norm(raw.double(), dim=1) > 1e-5
        assert int(sound.sum()) > 1000
        torch.testing.assert_close(length[sound], torch.ones(int(sound.sum())))
        expected = to_unit_vector(azimuth, zenith)
        torch.testing.assert_close(prediction.direction[sound], expected[sound], rtol=0, atol=1e-6)

    @every_head
    @given(pair=st.tuples(FLOAT32, FLOAT32))
    def test_angles_are_in_their_domains_for_any_input(
        self, name: HeadName, pair: tuple[float, float]
    ) -> None:
        prediction = head_on(name, torch.tensor([[*pair, 1.0]]))
        assert 0 <= prediction.azimuth.item() < TWO_PI
        assert 0 <= prediction.zenith.item() <= float(np.float32(math.pi))

    @every_head
    def test_gradients_are_finite_also_at_the_zero_vector(self, name: HeadName) -> None:
        raw = torch.cartesian_prod(*3 * [torch.tensor([0.0, 1e-7, -1e-3, 1.0, -1e6])])
        raw = raw.requires_grad_()
        prediction = head_on(name, raw)
        targets = random_angles(raw.shape[0]).float()
        losses: list[Loss] = [mean_angular_error]
        outputs = [prediction.direction, prediction.azimuth, prediction.zenith]
        if prediction.kappa is not None:
            losses.append(von_mises_fisher_nll)
            outputs.append(prediction.kappa)
        for value in [*(loss(prediction, targets) for loss in losses), *outputs]:
            (gradient,) = torch.autograd.grad(value.sum(), raw, retain_graph=True)
            assert gradient.isfinite().all()
            assert gradient.abs().max() > 0

    def test_the_length_of_the_vector_is_kappa(self) -> None:
        prediction = head_on("unit_vector", torch.tensor([[0, 3.0, 4.0], [0, 0, 0], [1e5, 0, 0]]))
        assert prediction.kappa is not None
        torch.testing.assert_close(prediction.kappa, torch.tensor([5, MIN_KAPPA, 1e5]))
        torch.testing.assert_close(prediction.direction[0], torch.tensor([0, 0.6, 0.8]))
        assert prediction.direction[1].tolist() == [0, 0, 0]
        assert head_on("angles", torch.zeros(1, 2)).kappa is None
        assert head_on("bounded_angles", torch.zeros(1, 2)).kappa is None

    def test_bounded_angles_are_tanh_and_sigmoid(self) -> None:
        prediction = head_on("bounded_angles", torch.tensor([[0.0, 0.0], [0.3, -0.7]]))
        expected = [math.pi, math.pi * (1 + math.tanh(0.3))]
        assert prediction.azimuth.tolist() == pytest.approx(expected, rel=1e-6)
        expected = [math.pi / 2, math.pi / (1 + math.exp(0.7))]
        assert prediction.zenith.tolist() == pytest.approx(expected, rel=1e-6)

    def test_bare_angles_are_folded_without_moving_the_direction(self) -> None:
        prediction = head_on("angles", torch.tensor([[7.0, -0.5]]))
        # Beyond the pole the same place has the opposite azimuth.
        assert prediction.azimuth.item() == pytest.approx(7 - math.pi, rel=1e-6)
        assert prediction.zenith.item() == pytest.approx(0.5, rel=1e-6)
        expected = to_unit_vector(d(7), d(-0.5)).float()
        torch.testing.assert_close(prediction.direction, expected)

    @every_head
    def test_under_autocast_angles_are_float32(self, name: HeadName) -> None:
        with torch.autocast("cpu", torch.bfloat16):
            prediction = HEADS[name](4)(torch.randn(2, 4))
        assert prediction.azimuth.dtype == prediction.direction.dtype == torch.float32

    def test_neighbours_across_the_seam_are_neighbours_for_the_loss(self) -> None:
        head = UnitVectorHead(3)
        with torch.no_grad():
            head.to_vector.weight.copy_(torch.eye(3))
            head.to_vector.bias.zero_()
        seam = head(torch.tensor([[1, 1e-3, 0], [1, -1e-3, 0]]))
        assert seam.azimuth[1] - seam.azimuth[0] > 6
        for azimuth in (0.0, TWO_PI):
            targets = torch.tensor([[azimuth, math.pi / 2]] * 2)
            assert mean_angular_error(seam, targets).item() == pytest.approx(1e-3, rel=1e-3)


class TestAngularError:
    def test_agrees_with_the_competition_at_generic_directions(self) -> None:
        for seed in range(20):
            direction = to_unit_vector(*random_angles(1, seed).float().unbind(1))
            prediction, target = towards(direction), random_angles(1, seed + 100).float()
            expected = competition_metric(prediction.azimuth, prediction.zenith, target).item()
            assert 1e-2 < expected < math.pi - 1e-2
            assert mean_angular_error(prediction, target).item() == pytest.approx(
                expected, abs=2e-6
            )
            assert arccos_error(prediction, target).item() == pytest.approx(expected, abs=2e-5)
        both = random_angles(50), random_angles(50, 1)
        mean = mean_angular_error(towards(to_unit_vector(*both[0].unbind(1))), both[1])
        assert mean.item() == pytest.approx(
            competition_metric(both[0][:, 0], both[0][:, 1], both[1]).item()
        )

    def test_the_metric_is_that_of_the_competition(self) -> None:
        # As its starter notebook writes it, with plain floats.
        predicted, true = random_angles(20).tolist(), random_angles(20, 1).tolist()
        total = 0.0
        for (az1, ze1), (az2, ze2) in zip(predicted, true, strict=True):
            dot = math.sin(ze1) * math.sin(ze2) * (
                math.cos(az1) * math.cos(az2) + math.sin(az1) * math.sin(az2)
            ) + math.cos(ze1) * math.cos(ze2)
            total += abs(math.acos(min(1, max(-1, dot))))
        mine = random_angles(20).float()
        metric = competition_metric(mine[:, 0], mine[:, 1], random_angles(20, 1))
        assert metric.dtype == torch.float64
        assert metric.item() == pytest.approx(total / 20, abs=1e-6)
        # Rounding may bring the scalar product above 1.
        same = random_angles(1000).float()
        assert competition_metric(same[:, 0], same[:, 1], same).item() < 1e-7

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("angle", [0, 1e-30, 1e-12, 1e-7, 1e-4, 1.0, math.pi - 1e-7, math.pi])
    def test_gradient_is_finite_and_at_most_1_everywhere(
        self, angle: float, dtype: torch.dtype
    ) -> None:
        targets = torch.cat([d(0, 0, 1, math.pi, 0, math.pi / 2).view(3, 2), random_angles(50)])
        truth = to_unit_vector(*targets.unbind(1))
        aside = torch.linalg.cross(truth, truth.roll(1, 1) + d(0.3, -0.2, 0.5))
        aside = aside / torch.linalg.vector_norm(aside, dim=1, keepdim=True)
        direction = (truth * math.cos(angle) + aside * math.sin(angle)).to(dtype).requires_grad_()
        loss = mean_angular_error(towards(direction), targets.to(dtype))
        assert loss.item() == pytest.approx(angle, abs=6e-7 if dtype == torch.float32 else 1e-15)
        (gradient,) = torch.autograd.grad(loss, direction)
        norms = torch.linalg.vector_norm(gradient, dim=1) * len(targets)
        assert gradient.isfinite().all()
        assert norms.max() < 1 + 1e-6
        if 1e-4 <= angle <= 1:
            assert norms.min() > 0.99

    def test_gradient_is_0_at_a_perfect_and_at_an_opposite_prediction(self) -> None:
        for sign in (1, -1):
            truth = to_unit_vector(*random_angles(5).unbind(1))
            direction = (sign * truth).requires_grad_()
            loss = mean_angular_error(towards(direction), random_angles(5))
            (gradient,) = torch.autograd.grad(loss, direction)
            assert (gradient == 0).all()


def log_density(kappa: float, angle: float) -> float:
    """log of kappa / (4 pi sinh kappa) exp(kappa cos angle), in plain float64."""
    log_sinh_over_kappa = (
        math.log(math.sinh(kappa) / kappa) if kappa < 20 else kappa - math.log(2 * kappa)
    )
    below_top = kappa * 2 * math.sin(angle / 2) ** 2
    return -math.log(4 * math.pi) - (log_sinh_over_kappa - kappa) - below_top


def slope_of_nll(kappa: float, angle: float) -> float:
    """d(-log density) / d kappa = coth kappa - 1 / kappa - cos angle."""
    langevin = kappa / 3 if kappa < 1e-3 else 1 / math.tanh(kappa) - 1 / kappa
    return langevin - math.cos(angle)


def nll(kappa: Tensor, angle: float) -> Tensor:
    """The loss of one event that is `angle` off."""
    vector = to_unit_vector(kappa.new_tensor([0.7]), kappa.new_tensor([0.4]))
    return von_mises_fisher_nll(towards(vector, kappa), kappa.new_tensor([[0.7, 0.4 + angle]]))


class TestVonMisesFisher:
    @pytest.mark.parametrize("kappa", KAPPAS)
    @pytest.mark.parametrize("angle", [0.0, 1e-6, 1e-3, 0.3, 2.0])
    def test_value_and_slope_agree_with_the_closed_form(self, kappa: float, angle: float) -> None:
        # The series in float64 is 1e-7 off where it ends, and its slope 2e-6.
        for dtype, rounding in ((torch.float64, 1e-7), (torch.float32, 3e-6)):
            leaf = torch.tensor([kappa], dtype=dtype, requires_grad=True)
            loss = nll(leaf, angle)
            (slope,) = torch.autograd.grad(loss, leaf)
            assert loss.item() == pytest.approx(
                -log_density(kappa, angle), rel=rounding, abs=rounding
            )
            assert slope.item() == pytest.approx(slope_of_nll(kappa, angle), abs=3e-6)

    def test_a_sure_and_right_prediction_keeps_the_slope_that_makes_it_surer(self) -> None:
        # 1 / tanh(k) - 1 / k - 1 = -1 / k, which a difference of large numbers would lose.
        for kappa in (1e3, 1e4, 1e5):
            leaf = torch.tensor([kappa], requires_grad=True)
            (slope,) = torch.autograd.grad(nll(leaf, 0.0), leaf)
            assert slope.item() == pytest.approx(-1 / kappa, rel=1e-4)

    @given(st.floats(-6, 5))
    def test_normaliser_is_exact_between_the_points_too(self, exponent: float) -> None:
        kappa = 10**exponent
        got = log_sinh_over(torch.tensor([kappa], dtype=torch.float64)).item()
        expected = -log_density(kappa, 0) - math.log(4 * math.pi)
        assert got == pytest.approx(expected, rel=2.5e-7, abs=1e-12)

    def test_the_normaliser_is_0_at_0_and_falls_with_slope_1(self) -> None:
        leaf = torch.tensor([0, 1e-30, 1e-9], requires_grad=True)
        values = log_sinh_over(leaf)
        (slopes,) = torch.autograd.grad(values.sum(), leaf)
        torch.testing.assert_close(values, torch.tensor([0, 0, -1e-9]), rtol=0, atol=1e-12)
        assert slopes.tolist() == [-1, -1, -1]

    def test_the_two_forms_meet(self) -> None:
        sides = d(0.5 - 1e-12, 0.5).requires_grad_()
        values = log_sinh_over(sides)
        (slopes,) = torch.autograd.grad(values.sum(), sides)
        assert abs(values[1] - values[0]).item() < 1.1e-7
        assert abs(slopes[1] - slopes[0]).item() < 2e-6

    @pytest.mark.parametrize("kappa", KAPPAS)
    def test_density_integrates_to_1(self, kappa: float) -> None:
        # Over u = kappa (1 - cos angle), from 0 to where nothing is left of exp(-u).
        end = min(2 * kappa, 40.0)
        nodes, weights = np.polynomial.legendre.leggauss(40)
        u = end / 2 * (nodes + 1)
        angles = 2 * np.arcsin(np.sqrt(u / kappa / 2))
        leaf = torch.tensor([kappa], dtype=torch.float64)
        density = np.array([math.exp(-nll(leaf, angle).item()) for angle in angles.tolist()])
        integral = 2 * math.pi * (density * weights).sum() * end / 2 / kappa
        assert integral == pytest.approx(1, abs=1e-6)

    @pytest.mark.parametrize("length", [0.0, 1e-20, 1e-8, 1e-6, 1e-3, 0.5, 1.0, 30.0, 1e5])
    def test_gradient_of_the_vector_is_finite(self, length: float) -> None:
        for target in ([0.7, 0.4], [0.7 + math.pi, math.pi - 0.4], [2.0, 1.0]):
            unit = to_unit_vector(torch.tensor([0.7]), torch.tensor([0.4]))
            vector = (length * unit).requires_grad_()
            loss = von_mises_fisher_nll(head_on("unit_vector", vector), torch.tensor([target]))
            (gradient,) = torch.autograd.grad(loss, vector)
            assert loss.isfinite()
            assert gradient.isfinite().all()

    def test_the_loss_is_the_mean_over_events(self) -> None:
        angles, targets, kappa = random_angles(6), random_angles(6, 1), d(0.1, 1, 2, 3, 40, 500)
        direction = to_unit_vector(*angles.unbind(1))
        loss = von_mises_fisher_nll(towards(direction, kappa), targets)
        apart = angle_between(direction, to_unit_vector(*targets.unbind(1))).tolist()
        each = [-log_density(k, a) for k, a in zip(kappa.tolist(), apart, strict=True)]
        assert loss.item() == pytest.approx(sum(each) / 6)

    def test_a_head_without_kappa_is_refused(self) -> None:
        with pytest.raises(ValueError, match="needs kappa, which only the unit_vector head gives"):
            von_mises_fisher_nll(towards(d(0, 0, 1)[None]), torch.zeros(1, 2))


def test_a_predictor_that_knows_nothing_scores_the_baseline() -> None:
    assert BASELINES.keys() == LOSSES.keys()
    # Directions evenly spread over the sphere (Fibonacci's spiral) are as good as uniform ones.
    n = 4000
    k = np.arange(n)
    azimuth, zenith = (k * math.pi * (3 - 5**0.5)) % TWO_PI, np.arccos(1 - (2 * k + 1) / n)
    targets = torch.from_numpy(np.stack([azimuth, zenith], axis=1))
    direction = to_unit_vector(d(1), d(2)).expand(n, 3)
    prediction = towards(direction, torch.full((n,), MIN_KAPPA, dtype=torch.float64))
    for name, loss in LOSSES.items():
        assert loss(prediction, targets).item() == pytest.approx(BASELINES[name], abs=1e-3), name
