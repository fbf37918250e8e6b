"""How far a run is, in words."""

import datetime


def progress_line(progress):
    """Return how far a run is as one line, with rate and time left where they are known."""
    if "needed" in progress:
        return f"{progress['here']} particles have come; the run begins with {progress['needed']}"
    fresh = progress["done"] - progress["before"]
    parts = [f"{progress['done']} of {progress['known']} particles"]
    if fresh > 0 and progress["seconds"] > 0:
        rate = fresh / progress["seconds"]
        parts.append(f"{rate:.3g}/s")
        if progress["known"] > progress["done"]:
            left = datetime.timedelta(seconds=round((progress["known"] - progress["done"]) / rate))
            parts.append(f"{left} left")
    if progress["open"]:
        parts.append("more may come")
    return ", ".join(parts)
