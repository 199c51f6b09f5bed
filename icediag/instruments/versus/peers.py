"""Other packages that do parts of the same work, where they are installed."""

import importlib
import warnings
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType
from typing import Any

NAMES = ("torch_geometric", "torch_scatter")


def peer(name: str) -> tuple[Any, str]:
    """A package, and why it cannot be used where it is None."""
    try:
        with warnings.catch_warnings():
            # One peer complains of another; what matters here is whether it can be used.
            warnings.simplefilter("ignore")
            module: ModuleType = importlib.import_module(name)
    except ModuleNotFoundError:
        return None, f"{name} is not installed"
    except (ImportError, OSError, RuntimeError) as error:
        # Without its words, which name folders of this machine.
        return None, f"{name} cannot be loaded ({type(error).__name__})"
    return module, ""


def versions() -> tuple[str, ...]:
    """Packages that take part, with their versions."""
    found = []
    for name in ("torch", "numpy", "pyarrow", *NAMES):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return tuple(found)
