"""Random particle files of RELION 3.1 with several optics groups, numbers in many forms, odd names and odd tables."""

from pathlib import Path

import numpy as np

ODD = ("'two words'", "é#", "x", "[1,2]", "'\"'", "data_1/y", '"it\'s so"')


def random_star(path, seed, texts, groups, rows, box=None, pixel=None, odd=ODD):
    """Write a STAR file of RELION 3.1 with this many groups and rows; return its path.

    Parameters
    ----------
    path : the file.
    seed : of everything random.
    texts : formats of numbers, taken in turn.
    groups, rows : int
    box, pixel : of all groups; random without.
    odd : values of a column that nobody knows, the first one.
    """
    rng = np.random.default_rng(seed)
    forms = [texts[i % len(texts)] for i in range(rows + groups)]
    labels = ["rlnOpticsGroupName", "rlnOpticsGroup", "rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast",
              "rlnImagePixelSize", "rlnImageSize", "rlnImageDimensionality", "rlnBeamTiltX", "oddOptics"]  # fmt: skip
    numbers = rng.permutation(np.arange(1, 3 * groups))[:groups]
    lines = ["data_optics", "", "loop_", *(f"_{label}" for label in labels)]
    for i, number in enumerate(numbers):
        kv, cs, q, size = rng.choice([200.0, 300.0]), rng.uniform(0, 3), rng.uniform(0.05, 0.2), rng.uniform(0.5, 5)
        name = f"'group {number}'" if i % 2 else f"g{number}"
        values = [forms[i].format(value) for value in (kv, cs)] + [
            f"{q:.4f}",
            f"{pixel or size:.5f}",
            str(box or 2 * rng.integers(8, 99)),
        ]
        lines.append(" ".join([name, str(number), *values, "2", f"{rng.normal():.3f}", f"'it''s {i}'"]))
    labels = ["rlnOddThing", "rlnImageName", "rlnOpticsGroup", "rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle", "rlnPhaseShift",
              "rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnOriginXAngst", "rlnOriginYAngst", "rlnClassNumber",
              "rlnLogLikeliContribution", "cryolikeScale"]  # fmt: skip
    lines += ["", "# a comment", "data_particles", "", "loop_", *(f"_{label} #{i}" for i, label in enumerate(labels, 1))]
    for i in range(rows):
        form = forms[i + groups]
        ctf = [form.format(value) for value in (rng.uniform(5e3, 3e4), rng.uniform(5e3, 3e4), rng.uniform(-180, 180))]
        pose = [f"{value:.6f}" for value in (rng.uniform(-180, 180), rng.uniform(0, 180), rng.uniform(-180, 180))]
        place = [f"{value:.4f}" for value in rng.normal(scale=9, size=2)]
        image = f"{rng.integers(1, 99):06d}@stack{rng.integers(3)}.mrcs"
        more = [str(rng.integers(1, 9)), form.format(rng.normal()), form.format(rng.normal())]
        lines.append(" ".join([str(rng.choice(odd)), image, str(rng.choice(numbers)), *ctf, "0.50", *pose, *place, *more]))
    lines += ["", "data_further", "", "_rlnNote  'kept  as it is' # even this", ""]
    Path(path).write_text("\n".join(lines), encoding="utf-8")
    return path
