"""Operations: a dispatch mode that does not wake the compiler, and kinds of operations."""

from torch.utils._python_dispatch import TorchDispatchMode

#: Operations that take of their argument no more than type and shape.
MADE = frozenset({
    "ones_like", "zeros_like", "full_like", "empty_like", "rand_like", "randn_like", "randint_like",
    "new_ones", "new_zeros", "new_full", "new_empty", "new_empty_strided",
})  # fmt: skip


class OperationMode(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """What looks on at operations derives from this.

    torch wraps each dispatch mode so that its compiler passes it over, and imports the compiler for
    that, two seconds of it. Nothing here is ever compiled: models run as they are written.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False
