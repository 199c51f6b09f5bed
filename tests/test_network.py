"""The network as a whole, and the assembly."""

import math
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor, nn

from icediag.model.array import icecube86
from icediag.model.assembly import Assembly, assemble, open_events
from icediag.model.collate import collate
from icediag.model.dataset import IceCubeDataset
from icediag.model.event import CHARGE, TIME, Event
from icediag.model.geometry import LENGTH_SCALE_M, GeometryLookup
from icediag.model.heads import HEADS, HeadName, Prediction
from icediag.model.losses import (
    LOSSES,
    mean_angular_error,
    von_mises_fisher_nll,
)
from icediag.model.network import DirectionNetwork, NetworkConfig
from icediag.model.normalize import NormalizerConfig
from tests.data_files import write_lengths
from tests.strategies import (
    SEEDS,
    changed,
    close,
    lengths,
    make_events,
    relative_twin,
    rows_of,
)

SMALL = NetworkConfig(d_model=8, n_heads=2, n_layers=2, octaves=2, backend="native")


def small_network(seed: int = 0, **changes: Any) -> DirectionNetwork:
    """A network with lively weights; `changes` go into its configuration."""
    torch.manual_seed(seed)
    network = DirectionNetwork(replace(SMALL, **changes))
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            # CLS and biases begin near 0, where an error in them would not be seen.
            if parameter.ndim == 1 and "norm" not in name:
                parameter.normal_(0, 0.5)
    return network


NETWORK = small_network()


def outputs(prediction: Prediction) -> Tensor:
    """The vector of the head, `(B, 3)`: direction times kappa."""
    assert prediction.kappa is not None
    return prediction.direction * prediction.kappa[:, None]


def gradients(network: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    names, parameters = zip(*network.named_parameters(), strict=True)
    found = torch.autograd.grad(loss, parameters, materialize_grads=True)
    return dict(zip(names, found, strict=True))


class TestNetwork:
    @example(counts=[0], seed=0)
    @example(counts=[0, 0, 0], seed=0)
    @example(counts=[1], seed=0)
    @given(counts=lengths(giant=60), seed=SEEDS)
    def test_a_batch_agrees_with_its_events_alone_in_values_and_gradients(
        self, counts: list[int], seed: int
    ) -> None:
        events = make_events(counts, seed)
        batch = collate(events)
        together = NETWORK(batch)
        alone = [NETWORK(collate([event])) for event in events]
        close(outputs(together), torch.cat([outputs(x) for x in alone]), 1e-4)
        losses = [
            von_mises_fisher_nll(x, e.target[None]) for x, e in zip(alone, events, strict=True)
        ]
        expected = gradients(NETWORK, torch.stack(losses).mean())
        got = gradients(NETWORK, von_mises_fisher_nll(together, batch.targets))
        for name, gradient in expected.items():
            assert got[name].isfinite().all(), name
            close(got[name], gradient, 1e-3)
        assert got["to_cls.3.bias"].abs().max() > 0
        assert (got["dom_encoder.encode.0.weight"].abs().max() > 0) == (sum(counts) > 0)

    @pytest.mark.parametrize("backend", ["native", "auto"])
    @pytest.mark.parametrize("head", HEADS)
    @pytest.mark.parametrize("counts", [[0], [0, 0, 0], [1], [0, 5, 0], [2]])
    def test_empty_events_give_finite_outputs_and_gradients(
        self, counts: list[int], head: HeadName, backend: str
    ) -> None:
        network = small_network(head=head, backend=backend)
        batch = collate(make_events(counts, 0))
        prediction = network(batch)
        loss = mean_angular_error(prediction, batch.targets)
        for value in (prediction.azimuth, prediction.zenith, prediction.direction, loss):
            assert value.isfinite().all()
        assert prediction.azimuth.shape == (len(counts),)
        loss.backward()  # type: ignore[no-untyped-call]
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
        bias = network.get_parameter("to_cls.3.bias")
        assert bias.grad is not None and bias.grad.abs().max() > 0
        # Nothing was seen: all empty events are given the same direction.
        empty = [i for i, n in enumerate(counts) if n == 0]
        close(
            prediction.direction[empty], prediction.direction[empty[:1]].expand(len(empty), 3), 1e-5
        )

    @given(counts=lengths(giant=60), seed=SEEDS, data=st.data())
    def test_outputs_follow_a_reordering_of_events(
        self, counts: list[int], seed: int, data: st.DataObject
    ) -> None:
        events = make_events(counts, seed)
        order = data.draw(st.permutations(range(len(counts))))
        got = outputs(NETWORK(collate([events[i] for i in order])))
        close(got, outputs(NETWORK(collate(events)))[list(order)], 1e-4)

    @given(counts=lengths(giant=60), seed=SEEDS)
    def test_outputs_do_not_depend_on_the_order_of_pulses(
        self, counts: list[int], seed: int
    ) -> None:
        events = make_events(counts, seed)
        rng = np.random.default_rng(seed)
        permuted = [
            changed(e, pulse_features=e.pulse_features[rng.permutation(n)])
            for e, n in zip(events, counts, strict=True)
        ]
        close(outputs(NETWORK(collate(permuted))), outputs(NETWORK(collate(events))), 1e-4)

    @given(counts=lengths(giant=60), seed=SEEDS, data=st.data())
    def test_changing_an_event_of_the_same_lengths_leaves_the_others_bit_for_bit(
        self, counts: list[int], seed: int, data: st.DataObject
    ) -> None:
        counts = [*counts, 3]
        events = make_events(counts, seed)
        filled = [i for i, n in enumerate(counts) if n]
        other = data.draw(st.sampled_from(filled))
        spoilt = events[other].pulse_features.clone()
        spoilt[:, [TIME, CHARGE]] = data.draw(st.sampled_from([0.0, 77_777.0, math.nan]))
        events_too = list(events)
        events_too[other] = changed(events[other], pulse_features=spoilt)
        got, got_too = outputs(NETWORK(collate(events))), outputs(NETWORK(collate(events_too)))
        here = [i for i in range(len(counts)) if i != other]
        assert torch.equal(got_too[here], got[here])
        assert not torch.equal(got_too[other], got[other])

    @given(counts=lengths(giant=60), seed=SEEDS, length=st.sampled_from([0, 1, 4, 100]))
    def test_changing_an_events_length_leaves_the_others_to_rounding(
        self, counts: list[int], seed: int, length: int
    ) -> None:
        events = make_events([*counts, 3], seed)
        others = make_events([length], seed + 1, pool=40)
        got = outputs(NETWORK(collate(events)))[:-1]
        close(outputs(NETWORK(collate(events[:-1] + others)))[:-1], got, 1e-4)

    @given(counts=lengths(giant=40), seed=SEEDS, data=st.data())
    def test_an_output_has_no_gradient_in_another_events_pulses(
        self, counts: list[int], seed: int, data: st.DataObject
    ) -> None:
        counts = [*counts, 6]
        batch = collate(make_events(counts, seed))
        raw = batch.pulse_features.clone().requires_grad_()
        got = outputs(NETWORK(replace(batch, pulse_features=raw)))
        event = data.draw(st.integers(0, len(counts) - 1))
        (gradient,) = torch.autograd.grad(got[event].sum(), raw)
        own, _ = rows_of(batch, event)
        elsewhere = torch.ones(len(raw), dtype=torch.bool)
        elsewhere[own] = False
        assert (gradient[elsewhere] == 0).all()
        assert counts[event] == 0 or gradient[own, TIME].abs().max() > 0

    def test_every_input_matters(self) -> None:
        (event,) = make_events([12], 0)
        base = outputs(NETWORK(collate([event])))
        for column in range(4):
            features = event.pulse_features.clone()
            features[0, column] = [20_000.0, 50.0, 17.0, 1 - features[0, 3].item()][column]
            assert not torch.allclose(
                outputs(NETWORK(collate([changed(event, pulse_features=features)]))),
                base,
                atol=1e-4,
            ), column

    def test_stages_get_what_their_signatures_say(self) -> None:
        network, seen = small_network(), dict[str, tuple[Tensor, ...]]()

        def keep(name: str) -> Callable[[nn.Module, Any], None]:
            return lambda _, inputs: seen.update({name: inputs})

        for name in ("normalizer", "relative_encoder", "dom_encoder", "geometry"):
            network.get_submodule(name).register_forward_pre_hook(keep(name))
        batch = collate(make_events([20, 0, 3], 0))
        network(batch)
        time, charge, _, auxiliary = batch.pulse_features.unbind(1)
        for name in ("normalizer", "relative_encoder"):
            assert torch.equal(seen[name][0], time)
            assert torch.equal(seen[name][1], charge)
        assert torch.equal(seen["normalizer"][2], auxiliary)
        features, weights = seen["dom_encoder"][:2]
        assert torch.equal(weights, charge)
        assert torch.equal(features[:, :3], network.normalizer(time, charge, auxiliary))
        relative = relative_twin(time, charge, batch.pulse_to_dom_idx, batch.num_doms)
        close(features[:, 3:].double(), relative, 1e-5)
        assert torch.equal(seen["geometry"][0], batch.dom_ids)

    def test_the_same_seed_gives_the_same_bits(self) -> None:
        batch = collate(make_events([20, 0, 3], 0))
        results = []
        for seed in (0, 0, 1):
            network = small_network(seed)
            found = network(batch)
            results.append((outputs(found), *gradients(network, outputs(found).sum()).values()))
        assert all(torch.equal(a, b) for a, b in zip(results[0], results[1], strict=True))
        assert not torch.equal(results[0][0], results[2][0])

    def test_what_a_model_was_trained_with_is_saved_with_it(self) -> None:
        ours = small_network(0, normalizer=NormalizerConfig(time_shift=5, time_scale=7))
        assert {"normalizer.shift", "normalizer.scale", "geometry.table"} < set(ours.state_dict())
        other = DirectionNetwork(SMALL, positions_m=torch.zeros(5160, 3))
        batch = collate(make_events([20, 0, 3], 0))
        assert not torch.equal(outputs(other(batch)), outputs(ours(batch)))
        other.load_state_dict(ours.state_dict())
        assert torch.equal(outputs(other(batch)), outputs(ours(batch)))
        assert {x.device.type for x in ours.to("meta").state_dict().values()} == {"meta"}

    def test_without_positions_it_is_icecube(self) -> None:
        assert torch.equal(
            DirectionNetwork(SMALL).geometry.table,
            GeometryLookup(torch.from_numpy(icecube86())).table,
        )

    @pytest.mark.parametrize("head", HEADS)
    def test_the_head_is_the_one_that_is_named(self, head: HeadName) -> None:
        assert type(small_network(head=head).head) is HEADS[head]

    @pytest.mark.parametrize(
        ("name", "value", "message"),
        [
            ("head", "x", "head: expected one of unit_vector, bounded_angles, angles, got 'x'"),
            ("dropout", 1.0, "dropout: expected 0 <= dropout < 1, got 1.0"),
            ("dropout", -0.1, "dropout: expected"),
            ("dropout", math.nan, "dropout: expected"),
            ("d_model", 0, "d_model: expected 1 or more, got 0"),
            ("n_heads", 0, "n_heads: expected 1 or more"),
            ("n_layers", -1, "n_layers: expected 1 or more"),
        ],
    )
    def test_bad_sizes_are_refused(self, name: str, value: Any, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            replace(SMALL, **{name: value})

    @pytest.mark.gpu
    @pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
    def test_a_gpu_agrees_with_the_cpu(self) -> None:
        network = small_network(backend="auto")
        batch = collate(make_events([100, 0, 3, 1, 0, 40], 0, pool=40))
        found = []
        for device in ("cpu", "cuda"):
            network.to(device)
            here = batch.pin_memory().to(device, non_blocking=True)
            assert here.pulse_features.device.type == here.packing.slot_of_cls.device.type == device
            prediction = network(here)
            loss = von_mises_fisher_nll(prediction, here.targets)
            values = {"outputs": outputs(prediction), **gradients(network, loss)}
            found.append({name: value.detach().cpu() for name, value in values.items()})
        for name, value in found[0].items():
            torch.testing.assert_close(found[1][name], value, rtol=1e-3, atol=1e-4, msg=name)


def built(**arguments: Any) -> Assembly:
    return assemble(**{"n_events": 20, "config": SMALL, **arguments})


class TestAssembly:
    def test_it_trains(self) -> None:
        made = built(validation=0.25)
        events = [made.dataset[int(i)] for i in made.train_indices[:4]]
        assert all(isinstance(event, Event) for event in events)
        batch = made.collate(events)
        loss = made.loss(made.network(batch), batch.targets)
        found = gradients(made.network, loss)
        assert loss.isfinite()
        assert all(gradient.isfinite().all() for gradient in found.values())
        assert found["to_cls.3.bias"].abs().max() > 0

    def test_the_same_seed_gives_the_same_assembly(self) -> None:
        one, same, other = built(seed=3), built(seed=3), built(seed=4)
        weights, weights_too = one.network.state_dict(), same.network.state_dict()
        assert all(torch.equal(weights[name], weights_too[name]) for name in weights)
        assert not torch.equal(
            weights["to_cls.3.bias"], other.network.state_dict()["to_cls.3.bias"]
        )
        assert one.train_indices.tolist() == same.train_indices.tolist()
        assert torch.equal(one.dataset[0].pulse_features, same.dataset[0].pulse_features)
        assert not torch.equal(one.dataset[0].pulse_features, other.dataset[0].pulse_features)

    def test_weights_do_not_depend_on_the_global_generator(self) -> None:
        torch.manual_seed(1)
        one = built()
        torch.manual_seed(2)
        name = "to_cls.3.bias"
        assert torch.equal(built().network.get_parameter(name), one.network.get_parameter(name))

    def test_global_generators_are_left_as_they_were(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def touched(seed: int) -> None:
            raise AssertionError("the generators of GPUs were seeded")

        monkeypatch.setattr(torch.cuda, "manual_seed_all", touched)
        before = torch.get_rng_state(), random.getstate(), np.random.get_state()  # noqa: NPY002
        built(seed=12)
        assert torch.equal(torch.get_rng_state(), before[0])
        assert random.getstate() == before[1]
        after: Any = np.random.get_state()  # noqa: NPY002
        assert all(np.array_equal(a, b) for a, b in zip(after, before[2], strict=True))

    def test_train_and_validation_share_no_event_and_leave_none_out(self) -> None:
        made = built(validation=0.3, n_events=60)
        both = [*made.train_indices.tolist(), *made.validation_indices.tolist()]
        assert sorted(both) == list(range(60))
        assert made.validation_indices.size > 5
        assert made.train_indices.size > 20
        everything = built(validation=0)
        assert everything.train_indices.tolist() == list(range(20))
        assert everything.validation_indices.size == 0

    @pytest.mark.parametrize("name", LOSSES)
    def test_the_loss_is_the_one_that_is_named(self, name: Any) -> None:
        made = built(loss=name)
        assert made.loss is LOSSES[name]
        assert made.loss_name == name
        assert made.baseline_loss == pytest.approx(
            math.log(4 * math.pi) if name == "vmf" else math.pi / 2
        )

    def test_a_data_set_on_disk_brings_its_own_geometry(self, tmp_path: Path) -> None:
        root = write_lengths(tmp_path, {1: [3, 0, 5], 2: [1, 1]}).root
        positions = np.random.default_rng(0).uniform(-400, 400, (5160, 3))
        rows = "".join(f"{i},{x},{y},{z}\n" for i, (x, y, z) in enumerate(positions.tolist()))
        (root / "sensor_geometry.csv").write_text("sensor_id,x,y,z\n" + rows)
        made = built(data=root, validation=0)
        assert isinstance(made.dataset, IceCubeDataset)
        assert len(made.dataset) == 5
        expected = torch.from_numpy(positions / LENGTH_SCALE_M).float()
        close(made.network.geometry.table, expected, 1e-6)
        assert len(open_events(root, files=1)) == 3
        assert len(open_events(n_events=7)) == 7

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"loss": "x"}, "loss: expected one of angular, vmf, competition, got 'x'"),
            ({"validation": 1.0}, "validation: expected a share from 0 to below 1, got 1.0"),
            ({"validation": -0.1}, "validation: expected a share"),
            ({"validation": math.nan}, "validation: expected a share"),
            ({"faults": ["x"]}, "fault: expected case, .*; got 'x'"),
            (
                {"loss": "vmf", "faults": ["unbounded-output"]},
                "loss: vmf needs the unit_vector head",
            ),
            ({"loss": "vmf", "config": replace(SMALL, head="angles")}, "loss: vmf needs"),
        ],
    )
    def test_bad_arguments_are_refused(self, arguments: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            built(**arguments)
