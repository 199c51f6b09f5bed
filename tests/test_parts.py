"""The parts of the network, each against a plain twin: from the normaliser to the transformer."""

import itertools
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor, nn

from icediag.model.array import icecube86
from icediag.model.collate import Batch, collate
from icediag.model.dom_encoder import DomEncoder, charge_weighted_mean
from icediag.model.event import CHARGE, TIME, Event
from icediag.model.geometry import LENGTH_SCALE_M, GeometryLookup, fourier_features
from icediag.model.light import C_LIGHT
from icediag.model.normalize import CHARGE_FLOOR, Normalizer, NormalizerConfig
from icediag.model.packing import pack, plan_packing
from icediag.model.relative import RelativeEncoder
from icediag.model.scatter import Backend
from icediag.model.summary import AUXILIARY_WEIGHT, EventSummary
from icediag.model.transformer import EventTransformer
from tests.strategies import (
    SEEDS,
    changed,
    close,
    lengths,
    make_events,
    members,
    relative_twin,
)

POOLS = st.sampled_from([1, 3, 40])
POSITIONS = GeometryLookup(torch.from_numpy(icecube86()))


class TestNormalizer:
    def test_the_fields_constants(self) -> None:
        out = Normalizer()(
            torch.tensor([1e4, 4e4, 0.0]),
            torch.tensor([1.0, 1000.0, 0.1]),
            torch.tensor([0.0, 1, 1]),
        )
        close(out, torch.tensor([[0, 0, 0], [1, 1, 1], [-1 / 3, -1 / 3, 1]]), 1e-6)

    def test_other_constants_are_used(self) -> None:
        config = NormalizerConfig(time_shift=5, time_scale=2, charge_shift=1, charge_scale=0.5)
        out = Normalizer(config)(torch.tensor([9.0]), torch.tensor([100.0]), torch.tensor([1.0]))
        close(out, torch.tensor([[2.0, 2.0, 1.0]]), 1e-6)

    def test_a_charge_of_0_counts_as_the_floor(self) -> None:
        zero = torch.zeros(1)
        out = Normalizer()(zero, zero, zero)
        close(out[:, 1], torch.tensor([math.log10(CHARGE_FLOOR) / 3]), 1e-6)
        assert Normalizer()(zero[:0], zero[:0], zero[:0]).shape == (0, 3)

    @given(seed=SEEDS, n=st.integers(200, 500))
    def test_fitted_constants_give_median_0_and_unit_spread(self, seed: int, n: int) -> None:
        rng = np.random.default_rng(seed)
        times = torch.from_numpy(rng.normal(12_000, 3_000, n)).float()
        charges = torch.from_numpy(rng.exponential(2.0, n)).float()
        config = NormalizerConfig.fitted(times, charges)
        out = Normalizer(config)(times, charges, torch.zeros(n)).double().numpy()
        for column in (0, 1):
            low, middle, high = np.quantile(out[:, column], [0.1587, 0.5, 0.8413])
            assert middle == pytest.approx(0, abs=1e-5)
            assert (high - low) / 2 == pytest.approx(1, abs=1e-5)

    def test_what_cannot_be_fitted_is_refused(self) -> None:
        some = torch.tensor([1.0, 2.0, 3.0])
        with pytest.raises(ValueError, match="times: expected at least one pulse"):
            NormalizerConfig.fitted(some[:0], some[:0])
        with pytest.raises(ValueError, match="times: expected values that differ, got 1.0"):
            NormalizerConfig.fitted(torch.ones(3), some)
        with pytest.raises(ValueError, match="charges: expected values that differ"):
            NormalizerConfig.fitted(some, torch.ones(3))
        for name in ("time_scale", "charge_scale"):
            for wrong in (0.0, -1.0, math.nan):
                with pytest.raises(ValueError, match=f"{name}: expected a number above 0, got"):
                    NormalizerConfig(**{name: wrong})

    def test_the_constants_are_saved_with_the_model(self) -> None:
        fitted = Normalizer(NormalizerConfig(time_shift=5, time_scale=2, charge_scale=7))
        assert sorted(fitted.state_dict()) == ["scale", "shift"]
        assert not list(fitted.parameters())
        other = Normalizer()
        other.load_state_dict(fitted.state_dict())
        raw = torch.rand(3, 4) + 1
        assert torch.equal(other(*raw.T[:3].clone()), fitted(*raw.T[:3].clone()))
        assert fitted.to("meta").shift.device.type == "meta"


class TestRelativeEncoder:
    @staticmethod
    def encode(batch: Batch) -> Tensor:
        raw = batch.pulse_features
        out: Tensor = RelativeEncoder("native")(
            raw[:, TIME], raw[:, CHARGE], batch.pulse_to_dom_idx, batch.num_doms
        )
        return out

    @example(counts=[0], seed=0, pool=3)
    @example(counts=[1], seed=0, pool=3)
    @given(counts=lengths(), seed=SEEDS, pool=POOLS)
    def test_agrees_with_plain_floats(self, counts: list[int], seed: int, pool: int) -> None:
        batch = collate(make_events(counts, seed, pool=pool))
        raw = batch.pulse_features
        expected = relative_twin(
            raw[:, TIME], raw[:, CHARGE], batch.pulse_to_dom_idx, batch.num_doms
        )
        got = self.encode(batch)
        assert got.dtype == torch.float32
        assert got.shape == (sum(counts), RelativeEncoder.n_features)
        close(got.double(), expected, 1e-5)
        assert ((got[:, 3:] >= 0) & (got[:, 3:] <= 1)).all()

    def test_one_doms_pulses_in_numbers(self) -> None:
        encoder = RelativeEncoder("native")
        times = torch.tensor([84_030.0, 84_000.0, 84_000.0, 500.0])
        charges = torch.tensor([1.0, 0.0, 3.0, 2.0])
        got = encoder(times, charges, torch.tensor([1, 1, 1, 0]), 3)

        def log(dt: float) -> float:
            return math.log(1 + dt / 10) / 4

        spread = log(math.sqrt(200))
        expected = [
            [log(30), log(20), spread, 0.25, 1 / 3, 2 / 3],
            [0, -log(10), spread, 0, 0, 0],
            [0, -log(10), spread, 0.75, 1, 0],
            [0, 0, 0, 1, 1, 0],
        ]
        close(got, torch.tensor(expected), 1e-6)

    def test_nothing_depends_on_when_the_readout_began(self) -> None:
        batch = collate(make_events([40, 3, 0], 0))
        later = replace(
            batch, pulse_features=batch.pulse_features + torch.tensor([65_536.0, 0, 0, 0])
        )
        assert torch.equal(self.encode(later), self.encode(batch))

    @given(counts=lengths(giant=40), seed=SEEDS)
    def test_follows_a_permutation_of_pulses(self, counts: list[int], seed: int) -> None:
        events = make_events(counts, seed, pool=2)
        rng = np.random.default_rng(seed)
        orders = [torch.from_numpy(rng.permutation(n)) for n in counts]
        permuted = [
            changed(e, pulse_features=e.pulse_features[o])
            for e, o in zip(events, orders, strict=True)
        ]
        order = torch.cat([sum(counts[:i]) + o for i, o in enumerate(orders)])
        batch, batch_too = collate(events), collate(permuted)
        got, got_too = self.encode(batch)[order], self.encode(batch_too)
        for exact in (0, 4, 5):  # first, largest and rank are told without a sum
            assert torch.equal(got_too[:, exact], got[:, exact])
        close(got_too, got, 1e-5)
        # Pooling follows too: a DOM is the same whatever order its pulses come in.
        torch.manual_seed(0)
        encoder = DomEncoder(6, 8, 8, "native")
        embedding, embedding_too = (
            encoder(x, b.pulse_features[:, CHARGE], b.pulse_to_dom_idx, b.num_doms)
            for x, b in ((self.encode(batch), batch), (got_too, batch_too))
        )
        close(embedding_too, embedding, 1e-4)

    @given(counts=lengths(), seed=SEEDS)
    def test_gradients_are_finite(self, counts: list[int], seed: int) -> None:
        batch = collate(make_events([*counts, 30], seed))
        raw = batch.pulse_features.clone().requires_grad_()
        out = self.encode(replace(batch, pulse_features=raw))
        (gradient,) = torch.autograd.grad(out.square().sum(), raw)
        assert gradient.isfinite().all()
        assert gradient[:, TIME].abs().max() > 0


def dom_twin(encoder: DomEncoder, features: Tensor, weights: Tensor, dom: Tensor, n: int) -> Tensor:
    """DOM by DOM."""
    rows = []
    for group in members(dom, n):
        encoded = encoder.encode(features[group])
        total = sum(weights[group].tolist())
        shares = [weight / total if total else 0.0 for weight in weights[group].tolist()]
        weighed = sum((x * share for x, share in zip(encoded, shares, strict=True)), 0 * encoded[0])
        rows.append(encoder.decode(torch.cat([encoded.mean(0), encoded.amax(0), weighed])))
    return torch.stack(rows)


class TestDomEncoder:
    @given(counts=lengths(giant=40), seed=SEEDS, pool=POOLS)
    def test_values_and_gradients_agree_with_one_dom_at_a_time(
        self, counts: list[int], seed: int, pool: int
    ) -> None:
        counts = [*counts, 2]  # a DOM at least
        batch = collate(make_events(counts, seed, pool=pool))
        torch.manual_seed(seed)
        encoder = DomEncoder(5, 4, 3, "native").double()
        features = torch.randn(sum(counts), 5, dtype=torch.float64, requires_grad=True)
        weights, dom = batch.pulse_features[:, CHARGE].double(), batch.pulse_to_dom_idx
        # The three steps of `forward`, which would pool in float32.
        pooled = encoder.pool(encoder.encode(features), weights, dom, batch.num_doms)
        out = encoder.decode(pooled)
        expected = dom_twin(encoder, features, weights, dom, batch.num_doms)
        close(out, expected, 1e-10)
        leaves = [features, *encoder.parameters()]
        mine, its = (torch.autograd.grad(x.square().sum(), leaves) for x in (out, expected))
        for a, b in zip(mine, its, strict=True):
            close(a, b, 1e-9)
        assert mine[0].abs().max() > 0

    def test_forward_is_encode_pool_decode(self) -> None:
        torch.manual_seed(0)
        encoder = DomEncoder(5, 4, 3, "native")
        features, weights, dom = torch.randn(6, 5), torch.rand(6), torch.tensor([0, 2, 1, 2, 2, 0])
        close(
            encoder(features, weights, dom, 3), dom_twin(encoder, features, weights, dom, 3), 1e-5
        )

    def test_pooling_is_float32_under_autocast(self, monkeypatch: pytest.MonkeyPatch) -> None:
        encoder = DomEncoder(5, 4, 3, "native")
        seen: list[Tensor] = []
        pool = encoder.pool

        def watched(encoded: Tensor, *others: Any) -> Tensor:
            seen.append(encoded)
            return pool(encoded, *others)

        monkeypatch.setattr(encoder, "pool", watched)
        with torch.autocast("cpu", torch.bfloat16):
            encoder(torch.randn(6, 5), torch.rand(6), torch.zeros(6, dtype=torch.int64), 1)
        assert [x.dtype for x in seen] == [torch.float32]

    def test_weights_of_a_dom_are_relative_and_may_all_be_0(self) -> None:
        encoded = torch.tensor([[1.0, 10], [2, 20], [5, 50]], requires_grad=True)
        dom = torch.tensor([0, 0, 1])
        out = charge_weighted_mean(encoded, torch.tensor([1.0, 3.0, 0.0]), dom, 3, "native")
        close(out, torch.tensor([[1.75, 17.5], [0, 0], [0, 0]]), 1e-6)
        (gradient,) = torch.autograd.grad(out.sum(), encoded)
        assert gradient.tolist() == [[0.25, 0.25], [0.75, 0.75], [0, 0]]
        # Weights that are wrong, as a fault's are, give what they are: 4/3 and -1/3 of the two.
        mixed = charge_weighted_mean(encoded, torch.tensor([-4.0, 1.0, -5.0]), dom, 3, "native")
        close(mixed, torch.tensor([[2 / 3, 20 / 3], [5, 50], [0, 0]]), 1e-6)
        scaled = charge_weighted_mean(encoded, torch.tensor([1e3, 3e3, 1.0]), dom, 3, "native")
        close(scaled, torch.tensor([[1.75, 17.5], [5, 50], [0, 0]]), 1e-6)


class TestGeometry:
    def test_positions_are_those_of_the_sensors(self) -> None:
        positions = torch.from_numpy(icecube86())
        ids = torch.tensor([5159, 0, 3000, 0])
        got = GeometryLookup(positions)(ids)
        assert got.dtype == torch.float32
        close(got, (positions[ids] / LENGTH_SCALE_M).float(), 1e-6)
        assert GeometryLookup(positions)(ids[:0]).shape == (0, 3)

    def test_the_table_is_a_buffer(self) -> None:
        lookup = GeometryLookup(torch.rand(5, 3))
        assert list(lookup.state_dict()) == ["table"]
        assert not list(lookup.parameters())
        assert lookup.to("meta").table.device.type == "meta"
        other = GeometryLookup(torch.zeros(5, 3))
        table = torch.rand(5, 3)
        other.load_state_dict({"table": table})
        assert torch.equal(other(torch.arange(5)), table)

    def test_bad_tables_are_refused(self) -> None:
        with pytest.raises(
            ValueError, match="positions_m: expected shape .sensors, 3., got .5, 2."
        ):
            GeometryLookup(torch.zeros(5, 2))
        with pytest.raises(ValueError, match="positions_m: expected shape"):
            GeometryLookup(torch.zeros(15))
        table = torch.zeros(5, 3)
        table[3, 1] = math.nan
        with pytest.raises(ValueError, match="positions_m: expected finite metres, got .*nan"):
            GeometryLookup(table)

    def test_fourier_features_in_plain_floats(self) -> None:
        positions = torch.tensor([[0.1, -0.7, 1.1], [0.0, 0.25, -1.0]])
        got = fourier_features(positions, 3)
        assert got.shape == (2, 3 + 6 * 3)
        for row, point in zip(got.tolist(), positions.tolist(), strict=True):
            angles = [math.pi * 2**k * x for x in point for k in range(3)]
            expected = [*point, *map(math.sin, angles), *map(math.cos, angles)]
            assert row == pytest.approx(expected, abs=1e-6)
        assert fourier_features(positions, 0).tolist() == positions.tolist()


class TestEventSummary:
    @staticmethod
    def summarise(batch: Batch, backend: Backend = "native") -> Tensor:
        time, charge, _, auxiliary = batch.pulse_features.unbind(1)
        out: Tensor = EventSummary(backend)(
            time,
            charge,
            auxiliary,
            POSITIONS(batch.dom_ids),
            batch.pulse_to_dom_idx,
            batch.dom_to_event_idx,
            batch.batch_size,
        )
        return out

    @staticmethod
    def alone(event: Event) -> list[float]:
        """One event in float64, pulse by pulse."""
        n = event.n_pulses
        if not n:
            return [0.0] * 11
        time, charge, sensor, auxiliary = event.pulse_features.double().numpy().T
        place = POSITIONS.table.double().numpy()[sensor.astype(int)]
        weights = np.where(auxiliary == 1, AUXILIARY_WEIGHT, 1.0)
        centroid = sum(weights[k] * place[k] for k in range(n)) / weights.sum()
        mean = sum(weights[k] * time[k] for k in range(n)) / weights.sum()
        spread = sum(weights[k] * (time[k] - mean) ** 2 for k in range(n)) / weights.sum() + 1
        steps = [weights[k] * (time[k] - mean) * (place[k] - centroid) for k in range(n)]
        velocity = sum(steps) / weights.sum() * LENGTH_SCALE_M / spread / C_LIGHT
        speed = float(np.sqrt((velocity**2).sum()))
        return [
            *centroid,
            *(velocity / (1 + speed)),
            *(-velocity / (speed + 0.01)),
            math.log1p(charge.sum()) / 10,
            (math.sqrt(spread) - 1) / 1000,
        ]

    @example(counts=[0], seed=0, pool=3)
    @example(counts=[0, 1, 0], seed=0, pool=3)
    @given(counts=lengths(), seed=SEEDS, pool=POOLS)
    def test_agrees_with_one_event_at_a_time(self, counts: list[int], seed: int, pool: int) -> None:
        events = make_events(counts, seed, pool=pool)
        got = self.summarise(collate(events))
        assert got.shape == (len(counts), EventSummary.n_features)
        expected = torch.tensor([self.alone(event) for event in events], dtype=torch.float64)
        close(got.double(), expected, 1e-3)
        assert (got[[n == 0 for n in counts]] == 0).all()

    def test_a_plane_wave_is_recognised(self) -> None:
        towards = torch.tensor([2.0, -1, 2]) / 3
        apart = torch.cat([torch.eye(3), -torch.eye(3)]) * 0.2  # 100 m from the middle
        times = 10_000 + apart @ towards * LENGTH_SCALE_M / C_LIGHT
        shift = torch.tensor([0.3, -0.2, 0.1])
        each, ones = torch.arange(6), torch.ones(6)
        got = EventSummary("native")(
            times, 2 * ones, 0 * ones, apart + shift, each, torch.zeros_like(each), 1
        )[0]
        close(got[:3], shift, 1e-6)
        close(got[3:6], towards / 2, 1e-4)  # v / (1 + v) at the speed of light
        close(got[6:9], -towards / 1.01, 1e-4)
        assert got[9].item() == pytest.approx(math.log(13) / 10, rel=1e-6)
        assert got[10].item() == pytest.approx(
            (times.std(correction=0).item() - 1) / 1000, rel=1e-3
        )

    def test_auxiliary_pulses_hardly_count_unless_there_are_no_others(self) -> None:
        (event,) = make_events([30], 0, pool=20)
        noisy = event.pulse_features.clone()
        noisy[:, 3] = 0
        noisy[:3, 3] = 1
        noisy[:3, TIME] = 70_000
        without = collate([changed(event, pulse_features=noisy[3:])])
        close(
            self.summarise(collate([changed(event, pulse_features=noisy)]))[:, :3],
            self.summarise(without)[:, :3],
            1e-3,
        )
        noise = noisy.clone()
        noise[:, 3] = 1
        clean = noisy.clone()
        clean[:, 3] = 0
        all_noise, all_clean = (
            self.summarise(collate([changed(event, pulse_features=x)])) for x in (noise, clean)
        )
        close(all_noise, all_clean, 1e-4)

    @given(counts=lengths(), seed=SEEDS, data=st.data())
    def test_no_event_sees_another(self, counts: list[int], seed: int, data: st.DataObject) -> None:
        counts = [*counts, 3]
        events = make_events(counts, seed)
        other = data.draw(st.sampled_from([i for i, n in enumerate(counts) if n]))
        spoilt = events[other].pulse_features.clone()
        spoilt[:, TIME] = math.nan
        got = self.summarise(collate(events))
        events[other] = changed(events[other], pulse_features=spoilt)
        got_too = self.summarise(collate(events))
        here = [i for i in range(len(counts)) if i != other]
        assert torch.equal(got_too[here], got[here])
        assert got_too[other].isnan().any()

    @given(counts=lengths(), seed=SEEDS)
    def test_gradients_are_finite(self, counts: list[int], seed: int) -> None:
        batch = collate(make_events(counts, seed, pool=40))
        raw = batch.pulse_features.clone().requires_grad_()
        out = self.summarise(replace(batch, pulse_features=raw))
        (gradient,) = torch.autograd.grad(out.square().sum(), raw)
        assert gradient.isfinite().all()


class TestTransformer:
    @staticmethod
    def alone(transformer: EventTransformer, tokens: Tensor, n_heads: int) -> Tensor:
        """The CLS token of one event after all layers, with torch's own encoder layer."""
        x = tokens[None]
        for block in transformer.layers:
            d = tokens.shape[1]
            layer = nn.TransformerEncoderLayer(
                d, n_heads, 4 * d, 0.0, "gelu", batch_first=True, norm_first=True, dtype=x.dtype
            )
            norm, up, _, down = block.feed_forward  # type: ignore[misc]
            pairs = {
                "self_attn.in_proj": block.to_qkv,
                "self_attn.out_proj.": block.from_heads,
                "norm1.": block.norm_attention,
                "norm2.": norm,
                "linear1.": up,
                "linear2.": down,
            }
            state = {
                f"{name}{'' if name.endswith('.') else '_'}{kind}": getattr(module, kind)
                for name, module in pairs.items()
                for kind in ("weight", "bias")
            }
            x = torch.func.functional_call(layer, state, (x,))
        out: Tensor = transformer.norm(x[0, 0])
        return out

    @example(counts=[0], seed=0)
    @given(counts=lengths(longest=6, giant=30, max_events=4), seed=SEEDS)
    def test_values_and_gradients_agree_with_torchs_layer_one_event_at_a_time(
        self, counts: list[int], seed: int
    ) -> None:
        torch.manual_seed(seed)
        transformer = EventTransformer(8, 2, 2).double()
        doms = torch.randn(sum(counts), 8, dtype=torch.float64, requires_grad=True)
        cls = torch.randn(8, dtype=torch.float64, requires_grad=True)
        got = transformer(pack(doms, cls, plan_packing(torch.tensor(counts))))
        offsets = np.cumsum([0, *counts]).tolist()
        expected = torch.stack(
            [
                self.alone(transformer, torch.cat([cls[None], doms[a:b]]), 2)
                for a, b in itertools.pairwise(offsets)
            ]
        )
        close(got, expected, 1e-9)
        leaves = [doms, cls, *transformer.parameters()]
        weights = torch.randn(got.shape, dtype=torch.float64)
        mine, its = (torch.autograd.grad((x * weights).sum(), leaves) for x in (got, expected))
        for a, b in zip(mine, its, strict=True):
            close(a, b, 1e-8)
        assert mine[1].abs().max() > 0

    @pytest.mark.parametrize("silent", ["from_heads", "feed_forward.3", None])
    def test_dropout_works_on_both_branches_in_training_alone(self, silent: str | None) -> None:
        torch.manual_seed(0)
        transformer = EventTransformer(8, 2, 1, dropout=0.5)
        if silent:  # one branch adds nothing, so it is the other that is dropped
            with torch.no_grad():
                for parameter in transformer.layers[0].get_submodule(silent).parameters():
                    parameter.zero_()
        packed = pack(torch.randn(5, 8), torch.randn(8), plan_packing(torch.tensor([2, 3])))
        assert not torch.equal(transformer(packed), transformer(packed))
        transformer.eval()
        assert torch.equal(transformer(packed), transformer(packed))

    @pytest.mark.parametrize("n_heads", [0, -1, 3])
    def test_heads_that_do_not_divide_the_width_are_refused(self, n_heads: int) -> None:
        with pytest.raises(ValueError, match="n_heads: expected a divisor of d_model .8., got"):
            EventTransformer(8, n_heads, 1)
