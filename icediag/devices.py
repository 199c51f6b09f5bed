"""Devices that a step can be projected to: constants with their source, from a small data file."""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from icediag.errors import IcediagError

#: The devices that come with icediag.
DEVICES = Path(__file__).with_name("devices.toml")


@dataclass(frozen=True, kw_only=True)
class DeviceModel:
    """A device and the host that drives it.

    Attributes:
        name: What an option calls it.
        title: What it is called.
        bandwidth: Bytes a second that a copy reaches.
        rates: Floating point operations a second, by dtype.
        kernel_s: The least time of a kernel, seconds.
        launch_s: Host time of a dispatched operation, seconds.
        sync_s: Host time of a blocking read from the device, seconds.
        source: Where the constants are from.
    """

    name: str
    title: str
    bandwidth: float
    rates: dict[str, float]
    kernel_s: float
    launch_s: float
    sync_s: float
    source: str

    def rate(self, dtype: str) -> float:
        """Floating point operations a second; of a dtype that is not told, those of float32."""
        return self.rates.get(dtype, self.rates["float32"])


def load_device(name: str) -> DeviceModel:
    """A device by its name, or the only one of a file of the same form.

    Raises:
        IcediagError: There is no such device or file, or an entry is not what it must be.
    """
    path = Path(name) if name.endswith(".toml") else DEVICES
    try:
        entries = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise IcediagError(f"--device-model: {path.name} cannot be read: {reason}") from None
    if path is DEVICES:
        if name not in entries:
            known = ", ".join(entries)
            raise IcediagError(f"--device-model: expected {known} or a .toml file, got {name!r}")
        return _device(name, entries[name])
    if len(entries) != 1:
        raise IcediagError(
            f"--device-model: expected one device in {path.name}, got {len(entries)}"
        )
    [(only, entry)] = entries.items()
    return _device(only, entry)


def _device(name: str, entry: Any) -> DeviceModel:
    try:
        rates = {
            str(key): _positive(f"rates.{key}", value) for key, value in entry["rates"].items()
        }
        rates["float32"]
        numbers = {
            key: _positive(key, entry[key])
            for key in ("bandwidth", "kernel_s", "launch_s", "sync_s")
        }
        return DeviceModel(
            name=name,
            title=str(entry["title"]),
            source=str(entry["source"]),
            rates=rates,
            **numbers,
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise IcediagError(f"--device-model: {name}: {what}") from None


def _positive(key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1e30:
        raise ValueError(f"{key}: expected a number above 0, got {value!r}")
    return float(value)
