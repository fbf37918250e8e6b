"""Quick runs of ``likelihood`` on a small set of two structures, and what reads their output."""

import re

import numpy as np
import pytest
import torch

from cryolike_scipion import cli
from cryolike_scipion.engine import likelihood_run
from cryolike_scipion.engine.particle_star import write_particles
from cryolike_scipion.engine.particles import read_particles

from .small_sets import SEARCH, rewrite_stack, score, simulate, write_maps

COUNT = 14
QUICK = {"angular_step": 25.0, "resolution": 14.0}


def make_small(folder):
    """Particles of two structures, with rows in another order than their images and a text column of the user's.

    Returns the folder, which holds ``input.star``, and the maps' paths.
    """
    maps = write_maps(folder)
    simulate(folder, maps, count=COUNT)
    particles = read_particles([folder / "truth.star"]).take(np.random.default_rng(0).permutation(COUNT))
    names = [f"micro graph '{i}' #%.mrc" for i in range(COUNT)]
    write_particles(folder / "input.star", particles, {"rlnMicrographName": names, "userNumber": ["1e-03"] * COUNT})
    return folder, maps


def run(small, out, **options):
    """The result of a coarse run on what `make_small` returned."""
    folder, maps = small
    return score(out, folder / "input.star", maps, **{**QUICK, **options})


def run_without_report(small, out, **options):
    """The same without the report, whose plots take longer than these runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(likelihood_run, "write_report", lambda *_: None)
        return run(small, out, **options)


def rows_of(star):
    """Labels and rows (lists of words) of the particle table, by the rules of STAR that these files need."""
    text = star.read_text(encoding="utf-8").split("data_particles")[1].split("\ndata_")[0]
    labels = re.findall(r"^_(\S+)", text, flags=re.MULTILINE)
    words = re.compile(r"""'[^\n]*?'(?=\s)|"[^\n]*?"(?=\s)|\S+""")
    return labels, [words.findall(line + " ") for line in text.splitlines() if "@" in line]


def command(small, out, *more):
    """The command line in this process: exit status. Threads stay as they were."""
    folder, maps = small
    options = {**SEARCH, **QUICK}
    arguments = [f"--{name.replace('_', '-')}={value}" for name, value in options.items() if name != "memory"]
    before = torch.get_num_threads()
    try:
        return cli.main([
            "likelihood", "--particles", str(folder / "input.star"), "--structures", *maps, *arguments, "--threads", "1",
            "--out", str(out), *more,
        ])  # fmt: skip
    finally:
        torch.set_num_threads(before)


def with_images(small, folder, change):
    """The particles with changed images, in another folder; returns the STAR file."""
    (folder / "particles.mrcs").write_bytes((small[0] / "particles.mrcs").read_bytes())
    rewrite_stack(folder / "particles.mrcs", change)
    star = folder / "input.star"
    text = (small[0] / "input.star").read_text(encoding="utf-8")
    star.write_text(text.replace(str(small[0]), str(folder)), encoding="utf-8")
    return star
