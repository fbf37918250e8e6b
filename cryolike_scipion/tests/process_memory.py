"""Resident memory of a process and of those that it has forked, seen from outside (Linux)."""

from pathlib import Path


def peak_resident(pid):
    """Return the most memory in bytes that a process itself has held; 0 once it has ended.

    VmHWM, unlike ``ru_maxrss``, does not count the memory of the process that started this one.
    """
    return _field(f"/proc/{pid}/status", "VmHWM:")


def resident_of_all(pid):
    """Return the bytes that a process and its descendants hold now; pages that they share count once."""
    pids, total = [pid], 0.0
    for one in pids:
        total += _field(f"/proc/{one}/smaps_rollup", "Pss:")
        for path in Path(f"/proc/{one}/task").glob("*/children"):
            try:
                pids.extend(int(word) for word in path.read_text(encoding="ascii").split())
            except OSError:
                continue
    return total


def _field(path, name):
    try:
        lines = Path(path).read_text(encoding="ascii").splitlines()
    except OSError:
        return 0.0
    return next((1024 * float(line.split()[1]) for line in lines if line.startswith(name)), 0.0)
