"""icediag tells why a training run on ragged events is slow or does not learn.

The public interface: describe a pipeline with `Pipeline`, then run the command line on it; or watch
a training that runs with `watch`.
"""

from typing import TYPE_CHECKING, Any

from icediag.pipeline import Domain, Pipeline, Raw

if TYPE_CHECKING:
    from icediag.watching import watch
    from icediag.watching.lightning import lightning_callback

__all__ = ["Domain", "Pipeline", "Raw", "lightning_callback", "watch"]


def __getattr__(name: str) -> Any:
    """What needs torch is imported when it is asked for: `icediag --help` does without."""
    if name == "watch":
        from icediag.watching import watch

        return watch
    if name == "lightning_callback":
        from icediag.watching.lightning import lightning_callback

        return lightning_callback
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
