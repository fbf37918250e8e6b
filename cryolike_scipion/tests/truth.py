"""Runs of the command line on the development data, and their comparison with RELION's truth."""

import os
import subprocess
import sys
from dataclasses import dataclass

import mrcfile
import numpy as np

from cryolike_scipion.engine import rotations, symmetry
from cryolike_scipion.engine.particles import read_particles
from cryolike_scipion.engine.results import load_results


def cryolike(*arguments, check=True):
    """Run the command line as a user would, on all cores, and return the finished process."""
    command = [sys.executable, "-m", "cryolike_scipion", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"})
    assert not check or done.returncode == 0, done.stderr
    return done


def all_threads():
    """The option that lets a run use every core (the tests' own processes use one)."""
    return ("--threads", len(os.sched_getaffinity(0)))


@dataclass(frozen=True)
class Agreement:
    """How a result compares with the truth: fractions, degrees and pixels."""

    accuracy: float
    mean_posterior: float
    pose_error: np.ndarray
    shift_error: np.ndarray

    def __str__(self):
        return (
            f"structure accuracy {self.accuracy:.4f} (mean posterior {self.mean_posterior:.4f}), pose error "
            f"{np.median(self.pose_error):.2f}° median, {np.quantile(self.pose_error, 0.9):.2f}° at 90 %, "
            f"{(self.pose_error < 15).mean():.4f} within 15°, shift error {np.median(self.shift_error):.3f} px median"
        )


def agreement(out, truth_star, group="C1"):
    """Compare a run's best poses and structures with a truth file, row by row."""
    found, truth = load_results(out), read_particles([truth_star])
    rows = found.row - 1
    right = rotations.matrix_from_euler(truth.rot[rows], truth.tilt[rows], truth.psi[rows])
    mine = rotations.matrix_from_euler(found.of_best("rot"), found.of_best("tilt"), found.of_best("psi"))
    shift = np.hypot(found.of_best("origin_x") - truth.origin_x[rows], found.of_best("origin_y") - truth.origin_y[rows])
    return Agreement(
        float((found.best_structure == np.maximum(truth.class_number[rows], 1)).mean()),
        float(found.of_best("structure_posterior").mean()),
        rotations.distance_deg(mine, right, symmetry.rotations(group)),
        shift / truth.pixel_size[rows],
    )


def phase_randomised(source, target, seed):
    """Write a map with the amplitudes of another and random phases."""
    with mrcfile.open(source) as file:
        density, pixel = np.array(file.data, dtype=np.float64), file.voxel_size.copy()
    noise = np.fft.rfftn(np.random.default_rng(seed).standard_normal(density.shape))
    random = np.fft.irfftn(np.abs(np.fft.rfftn(density)) * noise / np.abs(noise), s=density.shape)
    with mrcfile.new(target, overwrite=True) as file:
        file.set_data(random.astype(np.float32))
        file.voxel_size = pixel
