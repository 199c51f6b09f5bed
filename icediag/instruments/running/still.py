"""Stillness: what makes two steps on the same batch differ is switched off while a trial runs."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd

from .stages import FunctionStage, resolve, wrapped

#: Functions of torch that drop values.
_DROPOUTS = (
    *("dropout", "dropout1d", "dropout2d", "dropout3d"),
    *("alpha_dropout", "feature_alpha_dropout"),
)
#: Where `scaled_dot_product_attention` takes its dropout: after query, key, value and mask.
_DROPOUT_AT = 4


@contextmanager
def without_dropout(model: nn.Module) -> Iterator[bool]:
    """Switch all dropout off: layers, functions, attention and recurrent nets.

    Gives whether any layer had some. The attributes are put back at the end.
    """
    changed: list[tuple[nn.Module, str, Any]] = []
    for module in model.modules():
        name = "p" if isinstance(module, _DropoutNd) else "dropout"
        kinds = (_DropoutNd, nn.MultiheadAttention, nn.RNNBase)
        if isinstance(module, kinds) and getattr(module, name, None):
            changed.append((module, name, getattr(module, name)))
            setattr(module, name, 0.0)

    def stand_in(stage: FunctionStage) -> Callable[..., Any]:
        if stage.attribute == "scaled_dot_product_attention":

            def attention(*args: Any, **kwargs: Any) -> Any:
                kwargs.pop("dropout_p", None)
                if len(args) > _DROPOUT_AT:
                    args = (*args[:_DROPOUT_AT], 0.0, *args[_DROPOUT_AT + 1 :])
                return stage.function(*args, **kwargs)

            return attention

        def keep(input: Any, *_: Any, **__: Any) -> Any:  # noqa: A002 - as torch calls it
            return input

        return keep

    names = (*_DROPOUTS, "scaled_dot_product_attention")
    stages = [resolve(f"torch.nn.functional:{name}") for name in names]
    with ExitStack() as restore:
        for module, name, value in changed:
            restore.callback(setattr, module, name, value)
        with wrapped(stages, stand_in):
            yield bool(changed)


@contextmanager
def running_statistics(model: nn.Module) -> Iterator[bool]:
    """Have batch norms use what they have seen, not a batch of one; gives whether there are any."""
    norms = [m for m in model.modules() if isinstance(m, _NormBase) and m.training]
    for norm in norms:
        norm.training = False
    try:
        yield bool(norms)
    finally:
        for norm in norms:
            norm.training = True
