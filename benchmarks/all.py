"""Every benchmark, one after the other, as one Markdown document; ``--full`` takes the settings of the published tables.

Run it on a machine that does nothing else. Each benchmark is a process of its own.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from common import MACHINE_TOLD, hardware, versions

_FOLDER = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Section:
    """A heading, the script below it, and its options: once per tuple of `full`, or without any."""

    heading: str
    script: str
    full: tuple[str, ...] = ("",)


_SHIFTS = (1, 3, 5, 7)
SECTIONS = (
    Section(
        "Exhaustive search against CryoLike's algorithm",
        "kernel.py",
        tuple(f"--boxes 64 128 192 --shifts {n}" for n in _SHIFTS),
    ),
    Section("Hierarchical search", "hierarchical.py", ("--full",)),
    Section("Templates", "templates.py"),
    Section("Conversion of particles", "conversion.py"),
    Section(
        "Whole runs",
        "end_to_end.py",
        ("--box 128 --particles 1000 3000 10000 --structures 1 2 4 --profile --plot docs/images/end_to_end.png",),
    ),
    Section(
        "Memory",
        "memory.py",
        ("--bounds 1 2 4 --boxes 64 128 256 --particles 100 1000 --structures 2 4 --max-shift 6 --levels 0",),
    ),
    Section("Start-up", "startup.py", ("--boxes 32 64 128 --repeats 3",)),
    Section("On a GPU", "gpu.py"),
    Section("Beside RELION", "beside_relion.py", ("--count 2000 --box 64 --resolution 8 --relion-count 500",)),
)


def run(section: Section, options: str) -> bool:
    """Print what a benchmark prints; whether it ended well."""
    print(f"`python benchmarks/{section.script} {options}`".replace(" `", "`") + "\n", flush=True)
    start = time.perf_counter()
    words = [sys.executable, str(_FOLDER / section.script), *options.split()]
    status = subprocess.run(words, cwd=_FOLDER.parent, env={**os.environ, MACHINE_TOLD: "1"}).returncode
    print(f"\n({time.perf_counter() - start:.0f} s{f', exit status {status}' if status else ''})\n", flush=True)
    return status == 0


def main() -> int:
    """Print the document; return 1 where a benchmark failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="the published settings (hours); default: quick ones")
    full = parser.parse_args().full
    print(f"# Benchmarks\n\n{hardware()}.\n{versions()}.\n{'Full' if full else 'Quick'} settings.\n", flush=True)
    good = True
    for section in SECTIONS:
        if not (_FOLDER / section.script).exists():
            continue
        print(f"## {section.heading}\n", flush=True)
        for options in section.full if full else ("",):
            good &= run(section, options)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
