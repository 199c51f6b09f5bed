"""Room: memory that this process took at most, and how much of it there still is."""

import contextlib
import sys
from pathlib import Path

#: Where Linux tells of the limit and the use of a container: of control groups 2, and of 1.
_GROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
    ),
)


def peak_bytes() -> int:
    """Most that the process held at once until now; 0 where the system does not say."""
    try:
        import resource
    except ImportError:  # not on Windows
        return 0
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(most) * (1 if sys.platform == "darwin" else 1024)


def left_bytes() -> float:
    """What could be allocated now; infinite where the system does not say."""
    left = float("inf")
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                left = 1024.0 * int(line.split()[1])
    for limit, used in _GROUPS:
        # "max" where there is no limit.
        with contextlib.suppress(OSError, ValueError):
            most = int(Path(limit).read_text(encoding="ascii"))
            left = min(left, float(most - int(Path(used).read_text(encoding="ascii"))))
    return max(0.0, left)
