"""The event frame: what it makes of a line, of a flash, of noise, and of nothing."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from torch import Tensor

from icediag.model.array import icecube86
from icediag.model.collate import Batch, collate
from icediag.model.event import TIME
from icediag.model.frame import EventFrame, Frame
from icediag.model.geometry import LENGTH_SCALE_M, GeometryLookup
from icediag.model.light import C_LIGHT, N_GROUP

from .strategies import SEEDS, changed, lengths, make_events

POSITIONS = GeometryLookup(torch.from_numpy(icecube86()))


def look(batch: Batch) -> Frame:
    time, charge, _, auxiliary = batch.pulse_features.unbind(1)
    frame: Frame = EventFrame("native")(
        time,
        charge,
        auxiliary,
        POSITIONS(batch.dom_ids),
        batch.pulse_to_dom_idx,
        batch.dom_to_event_idx,
        batch.batch_size,
    )
    return frame


def one_event(places_m: Tensor, times: Tensor, auxiliary: Tensor | None = None) -> Frame:
    """An event with one pulse of 1 p.e. in each DOM, anywhere."""
    n = len(times)
    frame: Frame = EventFrame("native")(
        times.float(),
        torch.ones(n),
        torch.zeros(n) if auxiliary is None else auxiliary,
        (places_m / LENGTH_SCALE_M).float(),
        torch.arange(n),
        torch.zeros(n, dtype=torch.int64),
        1,
    )
    return frame


def on_a_line(heading: Tensor, n: int = 12) -> tuple[Tensor, Tensor]:
    """DOMs on a line through (40, -30, 20), and when a particle passes them at light speed."""
    along = torch.linspace(-300, 300, n, dtype=torch.float64)
    places = torch.tensor([40.0, -30, 20], dtype=torch.float64) + along[:, None] * heading
    return places, 10_000 + along / C_LIGHT


HEADING = torch.tensor([2.0, -1, 2], dtype=torch.float64) / 3


class TestLine:
    def test_a_particle_on_a_line_is_found(self) -> None:
        frame = one_event(*on_a_line(HEADING))
        came_from = frame.events[0, :3].double()
        assert came_from / came_from.norm() == pytest.approx(-HEADING, abs=1e-4)
        assert math.expm1(frame.events[0, 3].item() / 3) == pytest.approx(C_LIGHT, rel=1e-3)
        # Along it, and beside it no further than the floor of a distance.
        assert frame.doms[:, 10].tolist() == pytest.approx(
            (torch.linspace(-300, 300, 12) / 200).tolist(), abs=1e-3
        )
        assert frame.doms[:, 11].max() < math.log1p(1.01 / 30)

    def test_noise_far_from_the_line_hardly_turns_it(self) -> None:
        places, times = on_a_line(HEADING)
        noise = torch.tensor([[-200.0, 400, -300]], dtype=torch.float64)
        places, times = torch.cat([places, noise]), torch.cat([times, times[-1:] + 500])
        found = one_event(places, times).events[0, :3].double()
        angle = torch.dot(found / found.norm(), -HEADING).clamp(-1, 1).arccos().item()
        offset, apart = places - places.mean(0), times - times.mean()
        plain = -(offset * apart[:, None]).mean(0)
        plain_angle = torch.dot(plain / plain.norm(), -HEADING).arccos().item()
        assert angle < plain_angle / 4 and plain_angle > 0.1

    def test_auxiliary_pulses_do_not_turn_it(self) -> None:
        places, times = on_a_line(HEADING)
        noise = torch.tensor([[-200.0, 400, -300]], dtype=torch.float64)
        frame = one_event(
            torch.cat([places, noise]),
            torch.cat([times, times[-1:] + 500]),
            torch.tensor([0.0] * 12 + [1.0]),
        )
        came_from = frame.events[0, :3].double()
        assert came_from / came_from.norm() == pytest.approx(-HEADING, abs=1e-3)
        assert frame.doms[:, 12].tolist() == [1.0] * 12 + [0.0]

    def test_a_dom_is_lit_by_its_first_pulse_that_is_not_auxiliary(self) -> None:
        places, times = on_a_line(HEADING)
        alone = one_event(places, times)
        frame: Frame = EventFrame("native")(
            torch.cat([times, times[3:4] - 2_000]).float(),
            torch.ones(13),
            torch.tensor([0.0] * 12 + [1.0]),
            (places / LENGTH_SCALE_M).float(),
            torch.tensor([*range(12), 3]),
            torch.zeros(12, dtype=torch.int64),
            1,
        )
        assert frame.doms[3, 9].item() == pytest.approx(alone.doms[3, 9].item(), abs=0.05)


class TestFlash:
    def test_light_of_a_flash_in_the_middle_comes_with_the_same_delay(self) -> None:
        directions = torch.nn.functional.normalize(
            torch.tensor([[x, y, z] for x in (-1.0, 1) for y in (-1.0, 1) for z in (-1.0, 1)])
        ).double()
        places = torch.cat([60 * directions, 150 * directions])
        times = 10_000 + places.norm(dim=1) * N_GROUP / C_LIGHT
        delay = one_event(places, times).doms[:, 8]
        assert (delay.max() - delay.min()).item() < 0.01

    def test_shares_of_light_sum_to_all_of_it_and_point_where_it_is_bright(self) -> None:
        places = torch.tensor([[100.0, 0, 0], [-100, 0, 0], [0, 100, 0], [0, -100, 0]])
        times = torch.full((4,), 10_000.0)
        pattern = one_event(places, times).events[0, 8:].reshape(16, 4)
        assert pattern[:, 0].sum().item() == pytest.approx(4)
        assert pattern[:, 1:].sum(0).abs().max() < 1e-5
        brighter = one_event(torch.cat([places, places[:1] + 1]), torch.full((5,), 10_000.0))
        # Seen from the middle of light the others are farther away, and there are fewer in front.
        assert brighter.events[0, 8:].reshape(16, 4)[:, 1].abs().max() > 0.05


class TestBatch:
    @given(counts=lengths(), seed=SEEDS)
    def test_all_is_finite_and_an_empty_event_is_0(self, counts: list[int], seed: int) -> None:
        frame = look(collate(make_events(counts, seed, pool=20)))
        assert frame.events.shape == (len(counts), EventFrame.event_features)
        assert frame.doms.shape[1] == EventFrame.dom_features
        assert frame.events.isfinite().all() and frame.doms.isfinite().all()
        rest = frame.events[[n == 0 for n in counts]]
        # The floor of a length is all that is left.
        assert (rest.abs() <= 0.004).all()

    @given(counts=lengths(), seed=SEEDS)
    def test_no_event_sees_another(self, counts: list[int], seed: int) -> None:
        counts = [3, *counts]
        events = make_events(counts, seed)
        before = look(collate(events))
        spoilt = events[0].pulse_features.clone()
        spoilt[:, TIME] = math.nan
        events[0] = changed(events[0], pulse_features=spoilt)
        after = look(collate(events))
        assert torch.equal(after.events[1:], before.events[1:])
        assert after.events[0].isnan().any()

    @given(counts=lengths(), seed=SEEDS)
    def test_gradients_are_finite(self, counts: list[int], seed: int) -> None:
        batch = collate(make_events(counts, seed, pool=40))
        raw = batch.pulse_features.clone().requires_grad_()
        frame = look(replace(batch, pulse_features=raw))
        (gradient,) = torch.autograd.grad(
            frame.events.square().sum() + frame.doms.square().sum(), raw
        )
        assert gradient.isfinite().all()

    @given(counts=lengths(), seed=SEEDS)
    def test_the_order_of_pulses_does_not_matter(self, counts: list[int], seed: int) -> None:
        events = make_events(counts, seed, pool=20)
        turned = [changed(e, pulse_features=e.pulse_features.flip(0)) for e in events]
        one, other = look(collate(events)), look(collate(turned))
        assert torch.allclose(one.events, other.events, atol=2e-3)
        assert torch.allclose(one.doms, other.doms, atol=2e-3)
