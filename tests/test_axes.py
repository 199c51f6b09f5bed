"""Axes are named by two sizes; a coincidence of one size names nothing."""

from dataclasses import dataclass
from typing import Annotated

import pytest
import torch
from annotated_types import Ge
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import Float, Int
from torch import Tensor, nn

from icediag import Pipeline
from icediag.instruments.recorder.record import record
from icediag.instruments.shapes.axes import Axes, annotated_axes, pairs, plural_of_count
from icediag.instruments.shapes.naming import small_size
from icediag.recording import Recording, singular


@pytest.mark.parametrize(
    ("annotation", "names"),
    [
        (Float[Tensor, "pulses 4"], ["pulses", None]),
        (Float[Tensor, "events longest d_model"], ["events", "longest", "d_model"]),
        (Float[Tensor, ""], []),
        (Float[Tensor, "... 4"], []),
        (Float[Tensor, "*batch 4"], []),
        (Float[Tensor, "_ n+1 #b"], [None, None, None]),
        (Annotated[Int[Tensor, "doms"], Ge(0)], ["doms"]),
        (Float[Tensor, "doms"] | None, ["doms"]),
        (list[Float[Tensor, "doms"]], ["doms"]),
        (Tensor, []),
        (int, []),
        (None, []),
        ("Float[Tensor, 'doms']", []),
    ],
)
def test_names_in_annotations(annotation: object, names: list[str | None]) -> None:
    assert annotated_axes(annotation) == names


def test_two_sizes_make_an_axis() -> None:
    axes = Axes()
    axes.add("events", (64, 8))
    axes.add("features", (128, 128))  # the same in both: fixed
    axes.add("samples", (64, 8))  # has a name
    axes.add("events", (50, 7))  # the name is taken
    axes.add("pulses", (900, 110), "rows of all samples")
    assert axes.sizes() == {"events": 64, "pulses": 900}
    assert axes.notes == {"pulses": "rows of all samples"}
    assert axes.name((64, 8)) == "events"
    assert axes.name((64, 64)) is None
    assert axes.name((64, 9)) == "?"
    assert axes.name((65, 9)) == "events+1"
    assert axes.name((63, 7)) == "events-1"
    assert axes.name((964, 118)) == "events+pulses"
    assert axes.name((64 * 900, 8 * 110)) == "events*pulses"
    assert axes.name((64 * 901, 8 * 111)) == "events*(pulses+1)"


@given(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 400)), min_size=1, max_size=5))
def test_a_name_always_fits_both_sizes(sizes: list[tuple[int, int]]) -> None:
    axes = Axes()
    for i, pair in enumerate(sizes):
        axes.add("abcde"[i], pair)
    known = {name: pair for pair, name in axes.names.items()}
    for large, small in sizes:
        for at in ((large, small), (large + 1, small + 1), (small, large), (large * 2, small * 2)):
            text = axes.name(at)
            if text is None:
                assert at[0] == at[1]
            elif text != "?":
                for which in (0, 1):
                    scope = {name: pair[which] for name, pair in known.items()}
                    assert eval(text, {}, scope) == at[which]


def test_words() -> None:
    assert [singular(w) for w in ("pulses", "mass", "batch")] == ["pulse", "mass", "sample"]
    assert plural_of_count("num_doms") == "doms"
    assert plural_of_count("n_rows") == "rows"
    assert plural_of_count("number_of_hits") == "hits"
    assert plural_of_count("n_") is None and plural_of_count("doms") is None
    both = list(pairs([("a", (3, 4)), ("b", (5,)), ("c", (1,))], {"a": (2, 4), "b": (5, 1)}))
    assert both == [("a", 0, (3, 2)), ("a", 1, (4, 4))]


@given(st.integers(1, 5000))
def test_the_small_batch_is_smaller_and_has_two_where_it_can(n: int) -> None:
    small = small_size(n)
    assert 1 <= small <= n
    assert small < n or n == 1
    assert small >= 2 or n <= 2


@dataclass(frozen=True, kw_only=True)
class Batch:
    hits: Float[Tensor, "hits 3"]
    hit_of_track: Tensor
    num_tracks: int


def collate(samples: list[Tensor]) -> Batch:
    n = len(samples) * 2
    return Batch(hits=torch.cat(samples), hit_of_track=torch.zeros(n, 8), num_tracks=n)


def recorded(n: int = 8, features: int = 8) -> Recording:
    torch.manual_seed(0)
    model = nn.Linear(3, features)
    return record(
        Pipeline(
            name="hits",
            dataset=[torch.randn(1 + i % 3, 3) for i in range(20)],
            collate=collate,
            model=model,
            forward=lambda model, batch: model(batch.hits),
            loss=lambda predicted, _: predicted.mean(),
            batch_size=n,
        )
    )


def test_names_come_from_annotations_counts_and_the_batch() -> None:
    recording = recorded()
    assert recording.axes == {"hits": 15, "batch": 8, "tracks": 16}
    tensors = {(s.name, t.path, t.role): t for s in recording.stages for t in s.tensors}
    assert tensors["dataset item", "", "out"].axes == ("hits/sample", None)
    assert tensors["collate", "hits", "out"].axes == ("hits", None)
    assert tensors["collate", "hit_of_track", "out"].axes == ("tracks", None)
    # As many features as samples, or as hits: they are still features.
    assert tensors["model", "", "out"].axes == ("hits", None)
    assert tensors["model", "", "grad"].axes == ("hits", None)


@pytest.mark.parametrize("features", [8, 15, 16])
def test_features_as_many_as_rows_stay_a_number(features: int) -> None:
    recording = recorded(features=features)
    [out] = [t for s in recording.stages if s.name == "model" for t in s.tensors if t.role == "out"]
    assert out.shape == (15, features)
    assert out.axes == ("hits", None)


def test_the_longest_sample_is_an_axis_although_it_comes_first() -> None:
    def pad(samples: list[Tensor]) -> Tensor:
        return nn.utils.rnn.pad_sequence(samples, batch_first=True)

    recording = record(
        Pipeline(
            name="padded",
            dataset=[torch.ones(n, 3) for n in (9, 2, 3, 1, 4, 2)],
            collate=pad,
            model=nn.Linear(3, 1),
            loss=lambda predicted, _: predicted.mean(),
            batch_size=6,
        )
    )
    [batch] = [t for s in recording.stages if s.name == "collate" for t in s.tensors]
    assert batch.axes == ("batch", "longest", None)
    assert recording.axes == {"batch": 6, "longest": 9}
