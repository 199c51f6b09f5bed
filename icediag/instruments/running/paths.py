"""Paths: what would say whose machine it is, not what is wrong, is left out of what is recorded."""

import os
import re

#: Absolute paths in quotes, which may hold spaces: /a/b, ~/a, of Windows too.
_QUOTED = re.compile(
    r"""(?<=["'])(?:/|~\w*/|[A-Za-z]:[\\/]|\\\\)[^"'\n]*?([^"'\n\\/]*)[\\/]*(?=["'])"""
)
#: The same without quotes: up to a space, at least two levels deep, and not the end of an URL.
_BARE = re.compile(
    r"""(?:file://|(?<![\w.:/~\\]))(?:/|~\w*/|[A-Za-z]:[\\/]|\\\\)(?:[^\s"'/\\:]+[\\/])+([^\s"'/\\:,;)\]}]*)"""
)


def without_paths(text: str) -> str:
    """A text with absolute paths cut down to what they end in: `.../train_meta.parquet`.

    For "/home/ada/data/a.csv: no such file" it gives ".../a.csv: no such file".
    """
    home = os.path.expanduser("~").rstrip("/\\")  # noqa: PTH111 - Path.home() may raise
    if len(home) > 1:
        text = re.sub(re.escape(home) + r"(?![\w.-])", "~", text)
    return _BARE.sub(r".../\1", _QUOTED.sub(r".../\1", text))
