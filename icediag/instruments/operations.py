"""A dispatch mode that does not wake the compiler."""

from torch.utils._python_dispatch import TorchDispatchMode


class OperationMode(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """What looks on at operations derives from this.

    torch wraps each dispatch mode so that its compiler passes it over, and imports the compiler for
    that, two seconds of it. Nothing here is ever compiled: models run as they are written.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False
