"""Trace: one batch through the pipeline, operation by operation, with a label beside every tensor.

It sees where values that come from the batch meet the first weights, and what was done to them on
the way: logarithms, divisions by constants of the model, casts, integer arithmetic, uses as names.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from icediag.instruments.bounds.dispatch import name_of, tensors_of
from icediag.instruments.bounds.places import line_of_user
from icediag.instruments.running.operations import MADE, OperationMode
from icediag.instruments.trees.walk import held, leaves
from icediag.records.features import Consumer

from .labels import NOTHING, Label, Labels, Line, Twice, followed, key_of
from .numbers import Numbers

LOGS = {"log", "log2", "log10", "log1p"}
#: What leaves a logarithm one: entry by entry, and not its inverse.
ELEMENTWISE = {
    "add", "sub", "rsub", "mul", "div", "neg", "abs", "clamp", "clamp_min", "clamp_max", "sqrt",
    "_to_copy", "clone", "where", "nan_to_num", "masked_fill", "index", "index_select", "gather",
    "maximum", "minimum", "view", "_unsafe_view", "expand", "detach", "alias", "t", "transpose",
    "permute", "unsqueeze", "squeeze", "select", "slice", "contiguous", "_reshape_alias",
} | LOGS  # fmt: skip
#: Operations whose result has the values of their argument in the same places.
COPIES = {"_to_copy", "clone"}
#: (which argument is data, which are weights) of operations that first mix columns.
MATRIX = {"mm": (0, 1), "addmm": (1, 2), "bmm": (0, 1), "baddbmm": (1, 2), "mv": (0, 1)}
RECURRENT = {"mkldnn_rnn_layer": (0, 1), "_cudnn_rnn": (0, 1), "_thnn_fused_lstm_cell": (0, 1)}
#: Uses as a name: operation -> (table, index).
LOOK_UPS = {"embedding": (0, 1), "index_select": (0, 2), "gather": (0, 2)}
CLASSES = {"nll_loss_forward", "nll_loss2d_forward", "nll_loss", "nll_loss2d"}
NORMS = {
    "native_batch_norm", "_native_batch_norm_legit", "cudnn_batch_norm", "_batch_norm_with_update",
    "_batch_norm_with_update_functional",
}  # fmt: skip
#: What numbers are watched in.
ARITHMETIC = {"add", "sub", "mul", "_to_copy", "copy"}
LOOKED = {
    *MATRIX, *RECURRENT, *LOOK_UPS, *CLASSES, *NORMS, "convolution", "native_layer_norm", "index",
    "div", "mul",
}  # fmt: skip
#: At most so many tables of features are kept.
MOST_TABLES = 24
MOST_USES = 32


@dataclass(eq=False)
class Met:
    """Features that met weights.

    Attributes:
        x: The features, as they were made.
        axis: Along which axis the columns lie.
        consumer: What took them.
        at: Where.
        weights: For each column the summed squares of its weights; None where they are unknown.
        first: Number of the first column, in a concatenation.
        joined: Whether it is part of one.
        image: Whether columns are channels over two axes or more.
    """

    x: Tensor
    axis: int
    consumer: Consumer
    at: Line
    weights: Tensor | None = None
    first: int = 0
    joined: bool = False
    image: bool = False
    twice: tuple[Twice, ...] = ()


@dataclass(eq=False)
class Used:
    """Whole numbers that were used as names."""

    values: Tensor
    how: str
    at: Line


@dataclass(eq=False)
class Divided:
    """Features that were shifted and divided by constants of the model."""

    out: Tensor
    scale: Tensor
    at: Line
    before: Line | None = None


@dataclass(eq=False)
class Normed:
    """What a batch normalisation with running statistics got."""

    x: Tensor
    mean: Tensor
    var: Tensor
    at: Line


@dataclass(eq=False)
class Touched:
    """First use of a tensor that torch does not know of."""

    at: Line
    op: str
    uses: int = 1


@dataclass(eq=False)
class Seen:
    """All that a trace noted."""

    met: list[Met] = field(default_factory=list)
    used: list[Used] = field(default_factory=list)
    divided: list[Divided] = field(default_factory=list)
    normed: list[Normed] = field(default_factory=list)
    touched: dict[int, Touched] = field(default_factory=dict)
    with_gradients: set[int] = field(default_factory=set)


class Trace(OperationMode):
    """Follows labels while it is active.

    Args:
        stage: Gives the name of the stage that is running.
        watched: Identities of tensors whose uses are to be noted.
        n_samples: Samples in the batch.
        batch_size: That of the pipeline.
    """

    def __init__(
        self, stage: Callable[[], str], watched: set[int], n_samples: int, batch_size: int
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.labels = Labels()
        self.seen = Seen()
        self.numbers = Numbers(self.line, n_samples, batch_size)
        #: Nothing is noted before the run that counts.
        self.armed = False
        self._collating = False
        self._stage = stage
        self._watched = watched
        self._known: dict[Any, tuple[str, tuple[int, ...]]] = {}
        self._kept: set[tuple[int, str]] = set()

    def line(self) -> Line:
        """Where the operation that runs stands."""
        line = line_of_user()
        return Line(self._stage(), line[0] if line else None, line[1] if line else None)

    def around(self, what: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function that is traced while it runs."""
        return functools.partial(self._run, what, function)

    def _run(self, what: str, function: Callable[..., Any], *args: Any) -> Any:
        if not self.armed:
            return function(*args)
        if what == "forward":
            self._enter(*args)
        self._collating = what == "collate"
        try:
            with self:
                return function(*args)
        finally:
            self._collating = False

    def _enter(self, model: Any, batch: Any) -> None:
        """Label what the model is given, and what it holds."""
        for path, leaf in leaves(batch):
            self.numbers.hold(path, leaf, Line("collate", None, None))
        for _, thing in held(batch):
            if isinstance(thing, Tensor):
                kept = self.labels.of(thing)
                made = thing.detach() if thing.is_floating_point() else None
                self.labels.put(thing, replace(kept, data=True, learned=False, made=made))
        if not isinstance(model, nn.Module):
            return
        for module in model.modules():
            own = [*module.buffers(recurse=False), *vars(module).values()]
            for tensor in own:
                if isinstance(tensor, Tensor) and not isinstance(tensor, nn.Parameter):
                    self.labels.put(tensor, Label(state=True))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operation and label what it gives."""
        kwargs = kwargs or {}
        if not self.armed:
            return func(*args, **kwargs)
        known = self._known.get(func)
        if known is None:
            known = self._known[func] = (name_of(func), _written(func))
        name, written = known
        tensors = list(tensors_of(args)) + (list(tensors_of(kwargs)) if kwargs else [])
        labels = [self.labels.of(tensor) for tensor in tensors]
        if self._watched:
            for tensor in tensors:
                if id(tensor) in self._watched:
                    self._touch(tensor, name)
        expected = None
        if name in LOOKED or name in ARITHMETIC:
            try:
                with torch.no_grad():
                    self._look(name, args, tensors, labels)
                expected = self.numbers.before(name, args, kwargs)
            except (RuntimeError, TypeError, IndexError, ValueError, NotImplementedError):
                expected = None  # a form of the operation that was not thought of
        out = func(*args, **kwargs)
        if expected is not None:
            self.numbers.after(name, expected, out)
        if any(label is not NOTHING for label in labels) or self._collating:
            self._pass_on(name, args, [args[i] for i in written if i < len(args)], labels, out)
        elif not written:
            for tensor in tensors_of(out):
                if not any(tensor is given for given in tensors):
                    self.labels.put(tensor, NOTHING)
        return out

    def _touch(self, tensor: Tensor, name: str) -> None:
        if tensor.requires_grad and torch.is_grad_enabled():
            self.seen.with_gradients.add(id(tensor))
        touched = self.seen.touched.get(id(tensor))
        if touched is None:
            self.seen.touched[id(tensor)] = Touched(self.line(), name)
        else:
            touched.uses += 1

    def _pass_on(
        self, name: str, args: Any, written: list[Any], labels: list[Label], out: Any
    ) -> None:
        """Label what an operation gave, and what it wrote into."""
        given = self._label(name, args, labels)
        for tensor in tensors_of(written):
            self.labels.widen(tensor, given)
        here = {key_of(t) for t in tensors_of(args) if followed(t)}
        for tensor in tensors_of(out):
            if not followed(tensor) or key_of(tensor) in here:
                continue
            label = given
            if given.feature and tensor.is_floating_point():
                source = labels[0].made if labels and name in COPIES else None
                same = source is not None and source.shape == tensor.shape
                label = replace(given, made=source if same else tensor.detach())
            self.labels.put(tensor, label)

    def _label(self, name: str, args: Any, labels: list[Label]) -> Label:
        """What the result of an operation is."""
        if name in MADE and not self._collating:
            return NOTHING
        data = self._collating or any(label.data for label in labels)
        learned = any(label.learned for label in labels)
        state = bool(labels) and not data and all(label.state for label in labels)
        if not data and not learned and not state:
            return NOTHING
        twice = tuple(dict.fromkeys(t for label in labels for t in label.twice))
        log = None
        if name in ELEMENTWISE:
            log = next((label.log for label in labels if label.log is not None), None)
        if name in LOGS and data and not learned:
            if log is not None:
                twice = (*twice, Twice(name, self.line(), log))
            log = self.line()
        shifted = any(label.shifted for label in labels) and name in ELEMENTWISE
        if name in ("sub", "add") and data and any(label.state for label in labels):
            shifted = True
        normed = None
        if name in ELEMENTWISE:
            normed = next((label.normed for label in labels if label.normed is not None), None)
            if name in ("div", "mul") and shifted and len(labels) == 2 and labels[1].state:
                normed, shifted = self.line(), False
        joined: tuple[tuple[int, Tensor], ...] = ()
        if name == "cat" and learned:
            joined = self._parts(args, labels)
        elif name in COPIES and labels:
            joined = labels[0].joined
        return Label(
            data=data,
            learned=learned,
            state=state,
            shifted=shifted,
            normed=normed,
            log=log,
            twice=twice,
            joined=joined,
        )

    def _parts(self, args: Any, labels: list[Label]) -> tuple[tuple[int, Tensor], ...]:
        """Features among what is concatenated along the last axis."""
        parts, dim = args[0], args[1] if len(args) > 1 else 0
        if not parts or dim not in (-1, parts[0].ndim - 1):
            return ()
        found, first = [], 0
        for part, label in zip(parts, labels, strict=False):
            if label.feature and part.is_floating_point():
                found.append((first, part.detach()))
            first += part.shape[-1] if part.ndim else 0
        return tuple(found)

    def _look(self, name: str, args: Any, tensors: list[Tensor], labels: list[Label]) -> None:
        """Note what this operation shows."""
        if name in MATRIX or name in RECURRENT:
            self._matrix(name, args)
        elif name == "convolution":
            self._convolution(args)
        elif name == "native_layer_norm":
            self._layer_norm(args)
        elif name in NORMS:
            self._batch_norm(args)
        elif name in LOOK_UPS or name == "index" or name in CLASSES:
            self._names_used(name, args)
        elif name in ("div", "mul") and len(tensors) == 2:
            self._division(name, args, labels)

    def _matrix(self, name: str, args: Any) -> None:
        i, j = (MATRIX | RECURRENT)[name]
        x, weight = args[i], args[j]
        recurrent = name in RECURRENT
        kinds: Consumer = "recurrent" if recurrent else "linear"
        if self.labels.of(weight).learned:
            squares = None
            if not recurrent and weight.ndim == 2:
                squares = weight.detach().double().square().sum(1)
            self._meet(x, -1, kinds, squares)
        elif self.labels.of(x).learned and self.labels.of(weight).feature and weight.ndim == 2:
            # The weights stand on the left: columns of the data lie along its first axis.
            squares = x.detach().double().square().sum(0) if x.ndim == 2 else None
            self._meet(weight, 0, kinds, squares)

    def _convolution(self, args: Any) -> None:
        x, weight, transposed, groups = args[0], args[1], args[6], args[8]
        if self.labels.of(weight).learned:
            squares = None
            if not transposed and groups == 1:
                squares = weight.detach().double().square().transpose(0, 1).flatten(1).sum(1)
            self._meet(x, 1, "convolution", squares, image=x.ndim > 3)

    def _layer_norm(self, args: Any) -> None:
        if len(args[1]) == 1:
            self._meet(args[0], -1, "layer norm", None)

    def _meet(
        self,
        x: Tensor,
        axis: int,
        consumer: Consumer,
        weights: Tensor | None,
        *,
        image: bool = False,
    ) -> None:
        label = self.labels.of(x)
        if len(self.seen.met) >= MOST_TABLES or not x.is_floating_point() or not x.numel():
            return
        storage = x.untyped_storage()._cdata  # noqa: SLF001 - its identity
        if label.feature:
            if (storage, consumer) in self._kept:
                return
            self._kept.add((storage, consumer))
            made = label.made
            fits = made is not None and made.numel() == x.numel() and axis == -1
            natural = made if fits and made is not None and _ends_alike(made, x) else x
            kept = Met(natural.detach().clone(), axis, consumer, self.line(), weights, image=image)
            kept.twice = label.twice
            self.seen.met.append(kept)
        elif label.joined and axis == -1:
            for first, part in label.joined:
                key = (part.untyped_storage()._cdata, consumer)  # noqa: SLF001 - as above
                if key in self._kept:
                    continue
                self._kept.add(key)
                kept = Met(part.clone(), -1, consumer, self.line(), None, first, joined=True)
                kept.twice = self.labels.of(part).twice
                self.seen.met.append(kept)

    def _batch_norm(self, args: Any) -> None:
        x, mean, var = args[0], args[3], args[4]
        if isinstance(mean, Tensor) and isinstance(var, Tensor) and x.ndim > 1:
            mean, var = mean.detach().clone(), var.detach().clone()
            self.seen.normed.append(Normed(x.detach(), mean, var, self.line()))

    def _names_used(self, name: str, args: Any) -> None:
        if len(self.seen.used) >= MOST_USES:
            return
        if name in CLASSES:
            target = args[1]
            self._use(target, "classes of the loss")
            return
        table = args[0]
        of_data = self.labels.of(table)
        index = args[LOOK_UPS[name][1]] if name in LOOK_UPS else _only(args[1])
        if index is None or of_data.data or not isinstance(index, Tensor):
            return
        if name == "gather" or (not of_data.learned and ordered(table)):
            return
        self._use(index, f"an index into a table of {table.shape[0]:,} rows")

    def _use(self, values: Tensor, how: str) -> None:
        whole = values.dtype in (torch.int64, torch.int32, torch.int16)
        if whole and values.numel() and self.labels.of(values).data:
            self.seen.used.append(Used(values.detach(), how, self.line()))

    def _division(self, name: str, args: Any, labels: list[Label]) -> None:
        x, scale = args[0], args[1]
        if not isinstance(x, Tensor) or not isinstance(scale, Tensor):
            return
        if labels[0].feature and labels[0].shifted and labels[1].state and x.is_floating_point():
            out = x.detach() / scale if name == "div" else x.detach() * scale
            size = scale.detach() if name == "div" else 1 / scale.detach()
            before = labels[0].normed
            self.seen.divided.append(Divided(out, size.clone(), self.line(), before))


def _written(func: Any) -> tuple[int, ...]:
    """Which arguments an operation writes into."""
    return tuple(
        i
        for i, a in enumerate(func._schema.arguments)  # noqa: SLF001 - no public name
        if a.alias_info is not None and a.alias_info.is_write
    )


def _ends_alike(made: Tensor, x: Tensor) -> bool:
    return bool(made.ndim and x.ndim and made.shape[-1] == x.shape[-1])


def _only(indices: Any) -> Tensor | None:
    """The one tensor among the indices, where there is one alone."""
    given = [index for index in indices if isinstance(index, Tensor)]
    return given[0] if len(given) == 1 else None


def ordered(table: Tensor) -> bool:
    """Whether every column of a table rises or falls throughout: then its index is an order."""
    if table.ndim == 0 or table.shape[0] < 3 or table.dtype == torch.bool or table.is_complex():
        return True
    steps = table.detach().reshape(table.shape[0], -1)[:, :64].double().diff(dim=0)
    return bool(((steps >= 0).all(0) | (steps <= 0).all(0)).all())
