"""The faults of the case: each changes the one thing that it says, and nothing else."""

import functools
import math
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from hypothesis import example, given
from torch import Tensor, nn

from icediag.model import faults
from icediag.model.assembly import Assembly, assemble
from icediag.model.collate import Batch, collate
from icediag.model.dataset import IceCubeDataset
from icediag.model.event import CHARGE, TIME, FileDataset
from icediag.model.faults import CASE, FAULTS, Fault, chosen_faults
from icediag.model.faults.packing_loop import pack_one_by_one
from icediag.model.faults.per_event_slicing import PerEventSlicing
from icediag.model.faults.rank_loop import rank_dom_by_dom
from icediag.model.faults.unbounded_output import UnboundedHead
from icediag.model.losses import mean_angular_error
from icediag.model.network import NetworkConfig, Parts
from icediag.model.packing import pack
from icediag.model.scatter import group_rank
from icediag.model.simulate import default_dataset
from tests.data_files import LENGTHS, write_lengths
from tests.strategies import SEEDS, close, lengths, make_events

SMALL = NetworkConfig(d_model=8, n_heads=2, n_layers=1, octaves=2, backend="native")
BY_NAME = {fault.name: fault for fault in FAULTS}
#: Which part of the network each fault replaces.
PART = {
    "normalized-relative": "relative_inputs",
    "normalized-charge-weights": "pooling_weights",
    "packing-loop": "pack",
    "rank-loop": "rank",
    "unbounded-output": "head",
}


def new(*names: str) -> Assembly:
    return assemble(n_events=6, config=SMALL, faults=names)


#: For tests that change nothing in it.
built = functools.cache(new)


def a_batch() -> Batch:
    return collate(make_events([60, 0, 7, 1], 0))


def watched(assembly: Assembly, stage: str, batch: Batch) -> tuple[Tensor, ...]:
    """What reaches a stage of the network."""
    seen: list[tuple[Tensor, ...]] = []
    handle = assembly.network.get_submodule(stage).register_forward_pre_hook(
        lambda _, inputs: seen.append(inputs)
    )
    assembly.network(batch)
    handle.remove()
    (inputs,) = seen
    return inputs


class TestChoice:
    def test_every_file_of_the_folder_is_in_the_table(self) -> None:
        assert faults.__file__ is not None
        files = {path.stem for path in Path(faults.__file__).parent.glob("*.py")} - {"__init__"}
        assert {name.replace("-", "_") for name in BY_NAME} == files
        assert len(BY_NAME) == len(FAULTS)

    def test_the_case_is_what_its_report_names(self) -> None:
        chosen = [fault.name for fault in chosen_faults(["case"])]
        assert chosen == list(CASE)
        assert set(BY_NAME) - set(chosen) == {"rank-loop"}

    def test_each_is_chosen_once_in_the_order_of_the_table(self) -> None:
        names = ["rank-loop", "normalized-relative", "rank-loop"]
        assert [f.name for f in chosen_faults(names)] == ["normalized-relative", "rank-loop"]
        assert chosen_faults(["case", "rank-loop", "packing-loop"]) == FAULTS
        assert chosen_faults([]) == ()

    @pytest.mark.parametrize("name", ["", "x", "Case", "packing_loop"])
    def test_an_unknown_one_is_refused(self, name: str) -> None:
        with pytest.raises(
            ValueError, match=f"fault: expected case, .*packing-loop.*; got '{name}'"
        ):
            chosen_faults(["rank-loop", name])


class TestOneThing:
    @pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
    def test_one_part_is_replaced(self, fault: Fault) -> None:
        plain, parts = Parts(), fault.parts(Parts()) if fault.parts else Parts()
        replaced = {
            f.name for f in fields(Parts) if getattr(parts, f.name) != getattr(plain, f.name)
        }
        assert replaced == ({PART[fault.name]} if fault.parts else set())
        assert (fault.dataset is None) == (fault.parts is not None)
        assert fault.title

    @pytest.mark.parametrize("name", PART)
    def test_weights_are_those_of_the_right_network(self, name: str) -> None:
        right, wrong = built().network.state_dict(), built(name).network.state_dict()
        shared = [key for key in right if not key.startswith("head.")]
        assert len(shared) > 20
        for key in shared:
            assert torch.equal(wrong[key], right[key]), key
        assert name == "unbounded-output" or wrong.keys() == right.keys()

    def test_they_add_up(self) -> None:
        made = built("case", "rank-loop")
        assert made.faults == tuple(BY_NAME)
        assert built("case").faults == CASE
        assert built().faults == ()
        plain = Parts()
        for field in fields(Parts):
            assert getattr(made.network.parts, field.name) != getattr(plain, field.name)
        assert isinstance(made.dataset, PerEventSlicing)
        # It runs all the same, forwards and backwards.
        batch = made.collate([made.dataset[i] for i in range(4)])
        loss = made.loss(made.network(batch), batch.targets)
        parameters = list(made.network.parameters())
        for gradient in torch.autograd.grad(loss, parameters):
            assert gradient.isfinite().all()

    @pytest.mark.parametrize("names", [*([name] for name in PART), ["case"]], ids=str)
    def test_it_does_not_learn_but_neither_is_it_nan(self, names: list[str]) -> None:
        # Charges below and above 1 p.e., whose logarithms have both signs; some are 0.
        batch, made = a_batch(), built(*names)
        charge = batch.pulse_features[:, CHARGE]
        assert charge.min() == 0
        assert ((charge > 0) & (charge < 1)).any()
        loss = made.loss(made.network(batch), batch.targets)
        assert loss.isfinite()
        for gradient in torch.autograd.grad(loss, list(made.network.parameters())):
            assert gradient.isfinite().all()


class TestNormalizedRelative:
    def test_the_relative_encoder_gets_normalised_times_and_log_charges(self) -> None:
        batch = a_batch()
        time, charge = batch.pulse_features[:, TIME], batch.pulse_features[:, CHARGE]
        times, charges, dom, n = watched(built("normalized-relative"), "relative_encoder", batch)
        close(times, (time - 1e4) / 3e4, 1e-7)
        close(charges, (charge + 1e-8).log10() / 3, 1e-6)
        assert torch.equal(dom, batch.pulse_to_dom_idx)
        assert n == batch.num_doms
        right = watched(built(), "relative_encoder", batch)
        assert torch.equal(right[0], time)
        assert torch.equal(right[1], charge)

    def test_nothing_else_gets_them(self) -> None:
        batch = a_batch()
        wrong, right = built("normalized-relative"), built()
        for stage in ("normalizer", "geometry"):
            for a, b in zip(
                watched(wrong, stage, batch), watched(right, stage, batch), strict=True
            ):
                assert torch.equal(a, b)
        features, weights = watched(wrong, "dom_encoder", batch)[:2]
        expected, expected_weights = watched(right, "dom_encoder", batch)[:2]
        assert torch.equal(weights, expected_weights)
        assert torch.equal(features[:, :3], expected[:, :3])
        # Nanoseconds are flattened: what was of order 1 is all but gone.
        assert features[:, 3:6].abs().max() < 0.01 * expected[:, 3:6].abs().max()
        # The rank alone does not mind.
        assert torch.equal(features[:, 8], expected[:, 8])


class TestNormalizedChargeWeights:
    def test_weights_are_logarithms_and_negative(self) -> None:
        batch = a_batch()
        charge = batch.pulse_features[:, CHARGE]
        features, weights = watched(built("normalized-charge-weights"), "dom_encoder", batch)[:2]
        close(weights, (charge + 1e-8).log10() / 3, 1e-6)
        assert weights.min() < 0 < weights.max()
        right, right_weights = watched(built(), "dom_encoder", batch)[:2]
        assert torch.equal(features, right)
        assert torch.equal(right_weights, charge)


class TestPackingLoop:
    @example(counts=[0], seed=0)
    @example(counts=[0, 0], seed=0)
    @given(counts=lengths(giant=60), seed=SEEDS)
    def test_it_packs_the_same_tokens_for_each_event(self, counts: list[int], seed: int) -> None:
        batch = collate(make_events(counts, seed, pool=40))
        torch.manual_seed(seed)
        doms = torch.randn(batch.num_doms, 4, requires_grad=True)
        cls = torch.randn(len(counts), 4, requires_grad=True)
        slow, quick = pack_one_by_one(doms, cls, batch), pack(doms, cls, batch.packing)
        # The sum keeps `doms` in the graph when no event has one.
        sums = [0 * doms.sum(), 0 * doms.sum()]
        for event, n in enumerate(batch.event_dom_counts.tolist()):
            found = []
            for packed in (slow, quick):
                start = int(packed.slot_of_cls[event])
                assert not packed.padding_mask[start : start + 1 + n].any()
                found.append(packed.tokens[start : start + 1 + n])
            assert torch.equal(*found)
            for k in (0, 1):
                sums[k] = sums[k] + (found[k] * torch.arange(1, n + 2)[:, None]).sum()
        # One rectangle as long as the longest event, and all else is padding.
        (bucket,) = slow.buckets
        assert (bucket.start, bucket.rows) == (0, len(counts))
        assert bucket.length == max(batch.event_dom_counts.tolist()) + 1
        assert int((~slow.padding_mask).sum()) == len(counts) + batch.num_doms
        assert (slow.tokens[slow.padding_mask] == 0).all()
        mine, its = (torch.autograd.grad(x, [doms, cls]) for x in sums)
        torch.testing.assert_close(mine, its)

    def test_the_network_gives_the_same(self) -> None:
        self_same(built("packing-loop"))


class TestRankLoop:
    @example(counts=[0], seed=0)
    @given(counts=lengths(giant=60), seed=SEEDS)
    def test_it_gives_the_same_ranks(self, counts: list[int], seed: int) -> None:
        batch = collate(make_events(counts, seed))
        arguments = (batch.pulse_features[:, TIME], batch.pulse_to_dom_idx, batch.num_doms)
        ranks = rank_dom_by_dom(*arguments)
        assert ranks.dtype == torch.int64
        assert torch.equal(ranks, group_rank(*arguments))

    def test_the_network_gives_the_same(self) -> None:
        self_same(built("rank-loop"))


def self_same(slow: Assembly) -> None:
    """A fault that costs time alone: outputs and gradients are those of the right network."""
    batch = a_batch()
    found = []
    for made in (slow, built()):
        prediction = made.network(batch)
        loss = mean_angular_error(prediction, batch.targets)
        found.append(
            [prediction.direction, *torch.autograd.grad(loss, list(made.network.parameters()))]
        )
    for a, b in zip(*found, strict=True):
        close(a, b, 1e-5)


class TestUnboundedOutput:
    def test_scaled_weights_leave_the_domain(self) -> None:
        batch = a_batch()
        for name, bounded in (("unbounded-output", False), (None, True)):
            made = new(name) if name else new()
            linear = next(m for m in made.network.head.modules() if isinstance(m, nn.Linear))
            with torch.no_grad():
                for parameter in linear.parameters():
                    parameter.mul_(1_000)
            prediction = made.network(batch)
            inside = (prediction.azimuth >= 0) & (prediction.azimuth < 2 * math.pi)
            inside &= (prediction.zenith >= 0) & (prediction.zenith <= math.pi)
            assert bool(inside.all()) == bounded
            assert prediction.direction.isfinite().all()

    def test_it_gives_the_pair_of_its_linear_layer(self) -> None:
        made, batch = built("unbounded-output"), a_batch()
        (event,) = watched(made, "head", batch)
        head = made.network.head
        assert isinstance(head, UnboundedHead)
        pair = head.to_pair(event)
        prediction = made.network(batch)
        assert torch.equal(prediction.azimuth, pair[:, 0])
        assert torch.equal(prediction.zenith, pair[:, 1])
        assert prediction.kappa is None
        length = torch.linalg.vector_norm(prediction.direction, dim=1)
        close(length, torch.ones(batch.batch_size), 1e-6)


def in_memory(tmp_path: Path) -> FileDataset:
    return default_dataset(5, 0)


def on_disk(tmp_path: Path) -> FileDataset:
    root = write_lengths(tmp_path, LENGTHS, row_group_size=4).root
    rows = "".join(f"{sensor},{sensor / 10},1,2\n" for sensor in range(5160))
    (root / "sensor_geometry.csv").write_text("sensor_id,x,y,z\n" + rows)
    return IceCubeDataset(root)


@pytest.mark.parametrize("make", [in_memory, on_disk])
class TestPerEventSlicing:
    def test_it_gives_the_same_events(
        self, make: Callable[[Path], FileDataset], tmp_path: Path
    ) -> None:
        plain = make(tmp_path)
        sliced = PerEventSlicing(plain)
        assert len(sliced) == len(plain) >= 5
        order = [2, 0, len(plain) - 1, -1, 1, 2, *range(len(plain))]
        for index, quick, event in zip(
            order, plain.__getitems__(order), sliced.__getitems__(order), strict=True
        ):
            assert event.pulse_features.dtype == torch.float32
            assert torch.equal(event.pulse_features, quick.pulse_features)
            assert torch.equal(event.target, quick.target)
            assert event.event_id == quick.event_id
            assert torch.equal(sliced[index].pulse_features, quick.pulse_features)
        for outside in (len(plain), -len(plain) - 1):
            with pytest.raises(IndexError):
                sliced[outside]

    def test_all_else_is_that_of_the_data_set(
        self, make: Callable[[Path], FileDataset], tmp_path: Path
    ) -> None:
        plain = make(tmp_path)
        sliced = PerEventSlicing(plain)
        for name in ("event_ids", "lengths", "first", "targets", "file_of"):
            assert getattr(sliced, name) is getattr(plain, name), name
        assert torch.equal(sliced.geometry(), plain.geometry())
        with pytest.raises(AttributeError):
            sliced.nothing_of_that_name  # noqa: B018
