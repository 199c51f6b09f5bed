"""Trees of tensors: every container of users' batches, found, moved and left alone."""

from collections import OrderedDict, UserDict
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from icediag.instruments.trees.rebuild import rebuilt
from icediag.instruments.trees.rows import mapped as by_path
from icediag.instruments.trees.walk import MAX_DEPTH, has_tensor, integers, leaves, mapped, move

CPU = torch.device("cpu")
META = torch.device("meta")


class Pair(NamedTuple):
    left: Tensor
    right: Any


@dataclass
class Batch:
    x: Tensor
    rest: Any = None
    n_rows: int = 3
    made: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.made = self.x + 1


class Plain:
    def __init__(self, **content: Any) -> None:
        vars(self).update(content)


class Graph:
    """Like torch_geometric's Data: its attributes are no attributes."""

    __slots__ = ("store",)

    def __init__(self, **store: Any) -> None:
        self.store = store

    def to(self, device: torch.device) -> "Graph":
        return Graph(**move(self.store, device))

    def to_dict(self) -> dict[str, Any]:
        return self.store


class Moves:
    def __init__(self, x: Tensor) -> None:
        self.x = x
        self.moved_to: Any = None

    def to(self, device: torch.device) -> "Moves":
        made = Moves(self.x.to(device))
        made.moved_to = device
        return made


ONE = torch.ones(1)


def paths(tree: Any) -> list[str]:
    return [path for path, _ in leaves(tree)]


def test_paths_read_like_attributes() -> None:
    tree = {
        "dict": {"a": ONE, 3: ONE},
        "user": UserDict(a=ONE),
        "list": [ONE, "text", (ONE, None)],
        "pair": Pair(ONE, [ONE]),
        "batch": Batch(ONE, rest=ONE),
        "plain": Plain(a=ONE, b=7, c=[ONE]),
        "graph": Graph(x=ONE, n=2),
        "number": 3.5,
        "module": nn.Linear(2, 2),
        "function": paths,
    }
    assert paths(tree) == [
        "dict.a",
        "dict.3",
        "user.a",
        "list.0",
        "list.2.0",
        "pair.left",
        "pair.right.0",
        "batch.x",
        "batch.rest",
        "batch.made",
        "plain.a",
        "plain.c.0",
        "graph.x",
    ]
    assert paths(ONE) == [""]
    assert not has_tensor([1, "a", None, {}])
    assert has_tensor({"a": [np.ones(2)]})


def test_numpy_arrays_count_and_are_copied() -> None:
    array = np.arange(4, dtype=">i4")
    array.flags.writeable = False
    names = np.array(["a", "b"])
    tree = [array, np.float32(2.5), names, np.array([None]), np.ones(2, np.longdouble)]
    found = dict(leaves(tree))
    assert list(found) == ["0", "1"]
    assert found["0"].tolist() == [0, 1, 2, 3]
    found["0"][0] = 9
    assert array[0] == 0
    assert found["1"].item() == 2.5


class Narrow:
    """A sample without a `__dict__`."""

    __slots__ = ("label", "x")

    def __init__(self, x: Tensor) -> None:
        self.x = x  # and no label


class Wider(Narrow):
    __slots__ = "mask"

    def __init__(self, x: Tensor, mask: Tensor) -> None:
        super().__init__(x)
        self.mask = mask


@dataclass(frozen=True, slots=True)
class Fixed:
    x: Tensor


def test_slots_are_attributes() -> None:
    one = Wider(ONE, ONE > 0)
    assert paths([one, Fixed(ONE)]) == ["0.x", "0.mask", "1.x"]
    changed = (
        mapped([one, Fixed(ONE)], lambda tensor: tensor + 1),
        rebuilt([one, Fixed(ONE)], lambda _, leaf: leaf + 1),
    )
    for wider, fixed in changed:
        assert (type(wider), type(fixed)) == (Wider, Fixed)
        assert wider.x == fixed.x == 2 and one.x == 1
        assert not hasattr(wider, "label")


def test_what_contains_itself_and_what_raises() -> None:
    loop: dict[str, Any] = {"x": ONE}
    loop["again"] = [loop, loop]
    assert paths(loop) == ["x"]

    class Raises:
        def to(self, device: torch.device) -> None: ...

        def to_dict(self) -> dict[str, Any]:
            raise RuntimeError

    assert paths([Raises(), ONE]) == ["1"]
    # One object in two places is no loop.
    shared = [ONE]
    assert paths([shared, shared]) == ["0.0", "1.0"]


def test_depth_has_an_end() -> None:
    tree: Any = ONE
    for _ in range(MAX_DEPTH):
        tree = [tree]
    assert len(paths(tree)) == 1
    assert paths([[tree]]) == []


TREES = st.recursive(
    st.one_of(st.just(ONE), st.integers(), st.text(max_size=3), st.none()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner, inner),
        st.dictionaries(st.text(max_size=3), inner, max_size=3),
        st.builds(Pair, st.just(ONE), inner),
        st.builds(Batch, st.just(ONE), inner),
    ),
    max_leaves=8,
)


@given(TREES)
def test_moving_keeps_the_tree_and_moves_every_tensor(tree: Any) -> None:
    moved = move(tree, META)
    assert paths(moved) == paths(tree)
    assert all(tensor.device == META for _, tensor in leaves(moved))
    assert type(moved) is type(tree)
    # The user's own objects stay as they are, and what is there already is not copied.
    assert all(tensor.device == CPU for _, tensor in leaves(tree))
    assert move(tree, CPU) is tree


def test_what_moves_itself_moves_itself() -> None:
    moved = move({"a": Moves(ONE)}, META)["a"]
    assert moved.moved_to == META and moved.x.device == META


class Slotted:
    __slots__ = ("n_rows", "x")

    def __init__(self, x: Any) -> None:
        self.x, self.n_rows = x, 1


def test_objects_of_other_kinds_are_moved_in_a_copy() -> None:
    kinds: tuple[Any, ...] = (Plain(x={"a": [ONE]}, name="first"), Slotted({"a": [ONE]}))
    for own in kinds:
        moved = move(own, META)
        assert type(moved) is type(own) and paths(moved) == paths(own) == ["x.a.0"]
        assert moved.x["a"][0].device == META and own.x["a"][0].device == CPU


def test_moving_ends_where_an_object_holds_itself() -> None:
    ring: Any = Plain(x=ONE)
    ring.next = ring
    assert move(ring, META).x.device == META


def test_mappings_keep_their_type() -> None:
    assert type(move(OrderedDict(a=ONE), META)) is OrderedDict
    assert type(move(UserDict(a=ONE), META)) is UserDict


@dataclass
class Shown(OrderedDict[str, Any]):
    """Outputs that show their items as attributes too, as those of many libraries do."""

    loss: Any = None
    logits: Any = None

    def __post_init__(self) -> None:
        for name in ("loss", "logits"):
            OrderedDict.__setitem__(self, name, getattr(self, name))


def test_what_shows_its_items_as_attributes_shows_the_new_ones() -> None:
    given = Shown(loss=torch.ones(()), logits=torch.ones(3))
    for made in (
        rebuilt(given, lambda _, leaf: leaf + 1),
        mapped(given, lambda leaf: leaf + 1),
        by_path(given, lambda _, leaf: leaf + 1),
    ):
        assert type(made) is Shown
        assert made.loss == made["loss"] == 2
        assert made.logits.tolist() == [2, 2, 2]
    assert given.loss == 1 and given["loss"] == 1


def test_whole_numbers_at_the_top() -> None:
    assert dict(integers(Batch(ONE))) == {"n_rows": 3}
    assert dict(integers({"a": 1, "b": True, "c": 1.0, "d": {"e": 2}})) == {"a": 1}
    assert dict(integers(ONE)) == {}
