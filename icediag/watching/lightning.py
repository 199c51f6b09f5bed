"""The watch as a callback of Lightning, where that is installed."""

from typing import Any

from icediag.errors import IcediagError

from .watch import Watch, watch


def lightning_callback(**options: Any) -> Any:
    """A Lightning callback that watches the training.

    Every batch counts as a step, also where gradients are gathered over several.

    Args:
        **options: As for `icediag.watch`.

    Raises:
        IcediagError: Neither `lightning` nor `pytorch_lightning` is installed.
    """
    try:
        from lightning.pytorch import Callback
    except ImportError:
        try:
            from pytorch_lightning import Callback
        except ImportError:
            raise IcediagError(
                "lightning_callback: expected lightning or pytorch_lightning to be installed"
            ) from None

    class WatchCallback(Callback):  # type: ignore[misc, unused-ignore]
        """Begins with the training, is told of every batch."""

        watch: Watch | None = None

        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            # Of several optimizers the first; a module that has none is not trained.
            for optimizer in trainer.optimizers[:1]:
                self.watch = watch(pl_module, optimizer, **options)
                self.watch.__enter__()

        def on_train_batch_end(self, _: Any, __: Any, outputs: Any, batch: Any, *___: Any) -> None:
            loss = outputs["loss"] if isinstance(outputs, dict) else outputs
            if self.watch is not None and loss is not None:
                self.watch.step(loss, batch)

        def on_train_end(self, *_: Any) -> None:
            self._close()

        def on_exception(self, _: Any, __: Any, exception: BaseException) -> None:
            self._close(exception)

        def _close(self, error: BaseException | None = None) -> None:
            if self.watch is not None:
                self.watch.__exit__(None if error is None else type(error), error, None)
                self.watch = None

    return WatchCallback()
