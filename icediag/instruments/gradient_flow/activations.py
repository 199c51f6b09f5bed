"""Activations and attention, seen as a model calls them; numbers stay on the device until read."""

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from icediag.instruments.bounds.places import line_of_user
from icediag.records.gradients import ActivationFlow, AttentionFlow

#: 0, or next to it, on one side.
RECTIFIERS: dict[Any, str] = {
    **dict.fromkeys((functional.relu, torch.relu, Tensor.relu, torch.relu_, Tensor.relu_), "relu"),
    functional.relu6: "relu6",
    functional.gelu: "gelu",
    functional.silu: "silu",
}
#: Flat at both ends.
SQUASHES: dict[Any, str] = {
    **dict.fromkeys((torch.sigmoid, Tensor.sigmoid), "sigmoid"),
    **dict.fromkeys((torch.tanh, Tensor.tanh, torch.tanh_, Tensor.tanh_), "tanh"),
    functional.hardtanh: "hardtanh",
    functional.hardsigmoid: "hardsigmoid",
}
_CONVOLUTIONS = {
    *(torch.conv1d, torch.conv2d, torch.conv3d),
    *(torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d),
    *(functional.batch_norm, functional.group_norm, functional.instance_norm),
}
#: Below this a smooth rectifier gives less than a thousandth of its input, with as little slope.
_FAR = -4.0
#: Distance from an end of a squash at which its slope is a thousandth of the steepest, or less.
_END = 1e-3
#: Rows of a batch, and queries, whose attention is looked at.
_FEW = 4
_QUERIES = 64


@dataclass
class _Seen:
    kind: Literal["rectifier", "squash"]
    op: str
    stage: str
    place: tuple[str | None, int | None]
    alive: Tensor
    flat: Tensor
    values: int
    rows: int


class ActivationWatch(TorchFunctionMode):
    """Looks at activations and attention while it is entered; `stage` is kept by hooks."""

    def __init__(self) -> None:
        super().__init__()
        self.stack: list[str] = ["model"]
        self._seen: dict[tuple[str, str, int], _Seen] = {}
        self._attention: dict[tuple[str, int], tuple[int, int, Tensor, Any]] = {}
        self._calls: dict[tuple[str, str], int] = {}
        self._channels: set[tuple[int, ...]] = set()

    def again(self) -> None:
        """Begin with another batch: calls are counted anew."""
        self._calls.clear()

    @contextmanager
    def on(self, model: nn.Module) -> Iterator[None]:
        """Follow which module is running."""
        with ExitStack() as hooks:
            for path, module in model.named_modules():

                def before(_: nn.Module, __: Any, name: str = path or "model") -> None:
                    self.stack.append(name)

                def after(_: nn.Module, __: Any, ___: Any, name: str = path or "model") -> None:
                    while len(self.stack) > 1 and self.stack.pop() != name:
                        pass

                try:
                    hooks.callback(module.register_forward_pre_hook(before).remove)
                    hooks.callback(module.register_forward_hook(after, always_call=True).remove)
                except (RuntimeError, TypeError):
                    continue
            with self:
                yield

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Look at what an activation gives, and at the weights of an attention."""
        kwargs = kwargs or {}
        if func is functional.multi_head_attention_forward:
            return self._multi_head(func, args, kwargs)
        given = args[0] if args and isinstance(args[0], Tensor) else kwargs.get("input")
        rectifier = RECTIFIERS.get(func) if _hashable(func) else None
        far = None
        if rectifier in ("gelu", "silu") and isinstance(given, Tensor):
            far = given.detach() < _FAR
        output = func(*args, **kwargs)
        if isinstance(output, Tensor) and output.ndim and output.numel():
            if rectifier is not None:
                self._note("rectifier", rectifier, output, output.detach() <= 0, far)
            elif (squash := SQUASHES.get(func)) is not None:
                self._note("squash", squash, output, _at_end(squash, output.detach()), None)
            elif func in _CONVOLUTIONS:
                self._channels.add(tuple(output.shape))
        if func is functional.scaled_dot_product_attention:
            self._dot_product(args, kwargs)
        return output

    def _note(
        self,
        kind: Literal["rectifier", "squash"],
        op: str,
        output: Tensor,
        flat: Tensor,
        far: Tensor | None,
    ) -> None:
        flat = flat if far is None else far
        stage = self.stack[-1]
        count = self._calls[stage, op] = self._calls.get((stage, op), -1) + 1
        if count >= 8:  # a cell that is called again and again
            return
        axis = 1 if tuple(output.shape) in self._channels else output.ndim - 1
        others = [i for i in range(output.ndim) if i != axis]
        alive = (~flat).any(dim=others) if others else ~flat
        key = (stage, op, count)
        seen = self._seen.get(key)
        rows = output.numel() // output.shape[axis]
        if seen is None or seen.alive.shape != alive.shape:
            self._seen[key] = _Seen(
                kind,
                op,
                stage,
                _place(),
                alive,
                flat.sum(),
                output.numel(),
                rows,
            )
        else:
            seen.alive = seen.alive | alive
            seen.flat = seen.flat + flat.sum()
            seen.values += output.numel()
            seen.rows += rows

    def _dot_product(self, args: Any, kwargs: Any) -> None:
        names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
        given = dict(zip(names, args, strict=False)) | kwargs
        try:
            with torch.no_grad(), torch._C.DisableTorchFunction():  # noqa: SLF001 - not seen by us
                query = given["query"].detach()[:_FEW, ..., :_QUERIES, :].float()
                key = given["key"].detach()[:_FEW].float()
                scale = kwargs.get("scale") or 1 / math.sqrt(query.shape[-1])
                scores = query @ key.transpose(-1, -2) * scale
                mask = given.get("attn_mask")
                if mask is not None:
                    mask = mask.detach()
                    mask = mask[:_FEW] if mask.ndim == scores.ndim and mask.shape[0] > 1 else mask
                    mask = mask[..., :_QUERIES, :] if mask.shape[-2] > 1 else mask
                    off = mask.logical_not() if mask.dtype == torch.bool else None
                    scores = scores + mask if off is None else scores.masked_fill(off, -math.inf)
                if given.get("is_causal"):
                    shape = scores.shape[-2:]
                    later = torch.ones(shape, dtype=torch.bool, device=scores.device).triu(1)
                    scores = scores.masked_fill(later, -math.inf)
                self._weights(scores.softmax(-1))
        except (RuntimeError, KeyError, AttributeError, IndexError):
            return  # shapes of another convention: nothing is said of them

    def _multi_head(self, func: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        if "need_weights" not in kwargs:
            return func(*args, **kwargs)
        asked, average = kwargs["need_weights"], kwargs.get("average_attn_weights", True)
        output, weights = func(
            *args, **(kwargs | {"need_weights": True, "average_attn_weights": False})
        )
        if isinstance(weights, Tensor):
            with torch.no_grad(), torch._C.DisableTorchFunction():  # noqa: SLF001 - as above
                self._weights(weights.detach()[:_FEW])
            weights = weights.mean(-3) if average else weights
        return output, weights if asked else None

    def _weights(self, weights: Tensor) -> None:
        """Note `(..., heads, queries, keys)` weights."""
        if weights.ndim < 3 or weights.shape[-1] < 2:
            return
        stage = self.stack[-1]
        count = self._calls[stage, "attention"] = self._calls.get((stage, "attention"), -1) + 1
        if count >= 8 or (stage, count) in self._attention:
            return
        plogp = torch.where(weights > 0, weights * weights.log(), 0.0)
        allowed = (weights > 0).sum(-1)
        entropy = -plogp.sum(-1) / allowed.clamp_min(2).log()
        entropy = torch.where(allowed > 1, entropy, torch.nan)
        heads = weights.shape[-3]
        by_head = entropy.transpose(-2, -1).reshape(-1, heads).nanmean(0)
        self._attention[stage, count] = (
            heads,
            weights.shape[-1],
            by_head,
            _place(),
        )

    def activations(self) -> tuple[ActivationFlow, ...]:
        """What was seen, with one copy from the device."""
        seen = list(self._seen.values())
        if not seen:
            return ()
        numbers = torch.stack(
            [x.double().cpu() for s in seen for x in ((~s.alive).sum(), s.flat)]
        ).tolist()
        return tuple(
            ActivationFlow(
                stage=s.stage,
                op=s.op,
                kind=s.kind,
                units=s.alive.numel(),
                dead=int(numbers[2 * i]),
                saturated=numbers[2 * i + 1] / s.values,
                rows=s.rows,
                file=s.place[0],
                line=s.place[1],
            )
            for i, s in enumerate(seen)
        )

    def attention(self) -> tuple[AttentionFlow, ...]:
        """Attention that was seen; of several calls in a stage the first with many keys."""
        best: dict[str, tuple[int, int, Tensor, Any]] = {}
        for (stage, _), found in self._attention.items():
            if stage not in best or found[1] > best[stage][1]:
                best[stage] = found
        flows = []
        for stage, (heads, keys, by_head, place) in best.items():
            values = [value for value in by_head.tolist() if value == value]
            if values:
                flows.append(
                    AttentionFlow(
                        stage=stage,
                        heads=heads,
                        keys=keys,
                        entropy=sum(values) / len(values),
                        lowest=min(values),
                        highest=max(values),
                        file=place[0],
                        line=place[1],
                    )
                )
        return tuple(flows)


def _hashable(func: Any) -> bool:
    return getattr(func, "__hash__", None) is not None


def _at_end(op: str, output: Tensor) -> Tensor:
    if op in ("sigmoid", "hardsigmoid"):
        return (output < _END) | (output > 1 - _END)
    return output.abs() > 1 - _END


def _place() -> tuple[str | None, int | None]:
    return line_of_user() or (None, None)
