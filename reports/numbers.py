"""Numbers as people read them."""

import math

from icediag.recording import Number


def number(value: Number | None) -> str:
    """Four significant digits for a float, all of them and thousands marks for a whole number."""
    if value is None:
        return "-"
    if isinstance(value, int):
        return f"{value:,}"
    if not math.isfinite(value):
        return str(value)
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 1e6 or size < 1e-3:
        return f"{value:.2e}".replace("e-0", "e-").replace("e+0", "e").replace("e+", "e")
    if size >= 999.95:  # rounded, it has four digits before the point
        return f"{value:,.0f}"
    digits = max(0, 3 - math.floor(math.log10(size)))
    text = f"{value:.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def brief(value: Number | None) -> str:
    """Three significant digits, for a narrow column."""
    if value is None or isinstance(value, int) or not 1e-3 <= abs(value) < 999.5:
        return number(value)
    return f"{value:.3g}"


def share(part: int, whole: int) -> str:
    """A share in percent; a few of very many are never shown as none."""
    if whole == 0:
        return "-"
    percent = 100 * part / whole
    if part and percent < 0.1:
        return "<0.1 %"
    if part < whole and percent > 99.9:
        return ">99.9 %"
    return f"{percent:.3g} %"


def counted(n: int, what: str) -> str:
    """`1 call`, `2 calls`."""
    return f"{n:,} {what}" + ("" if n == 1 else "s")


def duration(seconds: float) -> str:
    """Three significant digits with the unit that suits: `51.7 ms`."""
    size = abs(seconds)
    for unit, scale in (("s", 1.0), ("ms", 1e3), ("us", 1e6)):
        if size * scale >= 0.9995:
            return f"{_three(seconds * scale)} {unit}"
    return "0" if size < 5e-10 else f"{seconds * 1e6:.2g} us"


def milliseconds(seconds: float) -> str:
    """Milliseconds without their unit, for a column; nothing is shown as less than 0.01."""
    value = 1e3 * seconds
    if value == 0:
        return "0"
    return "<.01" if abs(value) < 0.01 else _three(value)


def _three(value: float) -> str:
    if abs(value) >= 99.95:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 9.995 else f"{value:.2f}"


def amount(value: float) -> str:
    """A count in at most five characters: `8,413`, `127k`, `1.3M`."""
    return _short(value, 1000, ("", "k", "M", "G", "T"), 9_999.5)


def bytes_of(value: float) -> str:
    """Bytes in at most five characters, 1,024 to a step: `1.4G`."""
    sign = "-" if value < 0 else ""
    return sign + _short(abs(value), 1024, ("B", "K", "M", "G", "T"), 999.5)


def _short(value: float, step: int, units: tuple[str, ...], most: float) -> str:
    if value < most:
        whole = f"{value:,.0f}" if units[0] == "" else f"{value:.0f}"
        return f"{whole}{units[0]}" if value >= 9.95 or value == int(value) else f"{value:.1f}"
    for unit in units[1:]:
        value /= step
        if value < 999.5 or unit == units[-1]:
            break
    return f"{value:.1f}{unit}" if value < 9.95 else f"{value:,.0f}{unit}"


def percent(share: float) -> str:
    """A share, 0..1, in percent without a place for what rounds to nothing."""
    value = 100 * share
    if 0 < value < 0.5:
        return "<1 %"
    return f"{value:.0f} %"
