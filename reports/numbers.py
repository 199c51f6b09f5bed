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
