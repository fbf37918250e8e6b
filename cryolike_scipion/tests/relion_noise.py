"""Particles of two similar structures with coloured noise, made by RELION: ``relion_project --model_noise``."""

import subprocess

import mrcfile
import numpy as np

from cryolike_scipion.engine.rotations import euler_from_matrix, random_rotations

from .blob_particles import Blobs
from .helpers import program
from .small_sets import write_map

BOX, PIXEL = 32, 4.0
_OPTICS = ("OpticsGroup", "OpticsGroupName", "ImagePixelSize", "ImageSize", "ImageDimensionality", "Voltage",
           "SphericalAberration", "AmplitudeContrast")  # fmt: skip
_ROWS = ("ImageName", "OpticsGroup", "MicrographName", "DefocusU", "DefocusV", "DefocusAngle", "AngleRot", "AngleTilt",
         "AnglePsi", "OriginXAngst", "OriginYAngst")  # fmt: skip
_MODEL = {
    "ReferenceDimensionality": 3, "DataDimensionality": 2, "OriginalImageSize": BOX, "CurrentImageSize": BOX,
    "CurrentResolution": 2 * PIXEL, "NrClasses": 1, "NrBodies": 1, "NrGroups": 1, "Tau2FudgeFactor": 1, "PixelSize": PIXEL,
    "NormCorrectionAverage": 1, "SigmaOffsetsAngst": 1, "OrientationalPriorMode": 0, "SigmaPriorRotAngle": 0,
    "SigmaPriorTiltAngle": 0, "SigmaPriorPsiAngle": 0, "LogLikelihood": 0, "AveragePmax": 1, "PaddingFactor": 2,
    "FourierSpaceInterpolator": 1, "MinRadiusNnInterpolation": 10,
}  # fmt: skip


def spectrum(frequency):
    """Power of the noise at frequencies in 1/Å, in any unit: strong and steep as in real images."""
    return 1.0 + 60.0 * np.exp(-frequency * PIXEL * 14.0)


def _table(name, labels, rows):
    head = "".join(f"_rln{label} #{i}\n" for i, label in enumerate(labels, 1))
    return f"data_{name}\n\nloop_\n{head}" + "".join(" ".join(map(str, row)) + "\n" for row in rows) + "\n"


def _write_model(path, level):
    """A model file whose only group has the noise, ``level`` times its spectrum."""
    k = np.arange(BOX // 2 + 1)
    sigma2 = level * spectrum(k / (BOX * PIXEL))
    spectral = ("SpectralIndex", "Resolution", "AngstromResolution", "SsnrMap", "GoldStandardFsc", "FourierCompleteness",
                "ReferenceSigma2", "ReferenceTau2")  # fmt: skip
    classes = ("ReferenceImage", "ClassDistribution", "AccuracyRotations", "AccuracyTranslationsAngst", "EstimatedResolution",
               "OverallFourierCompleteness")  # fmt: skip
    path.write_text(
        "# version 30001\n\ndata_model_general\n\n"
        + "".join(f"_rln{label} {value}\n" for label, value in _MODEL.items())
        + "\n"
        + _table("model_classes", classes, [("1.mrc", 1, 1, 1, 8, 1)])
        + _table("model_class_1", spectral, [(i, i / (BOX * PIXEL), BOX * PIXEL / max(i, 0.1), *[1] * 5) for i in k])
        + _table("model_groups", ("GroupNumber", "GroupName", "GroupNrParticles", "GroupScaleCorrection"), [(1, "one", 1, 1)])
        + _table("model_group_1", ("SpectralIndex", "Resolution", "Sigma2Noise"),
                 [(i, i / (BOX * PIXEL), f"{s:.6e}") for i, s in zip(k, sigma2)])
        + _table("model_pdf_orient_class_1", ("OrientationDistribution",), [[1]] * 12)
    )  # fmt: skip


def _write_star(path, rows):
    optics = [(1, "one", PIXEL, BOX, 2, 300.0, 2.7, 0.1)]
    path.write_text("# version 30001\n\n" + _table("optics", _OPTICS, optics) + _table("particles", _ROWS, rows))


def _relion_project(folder, k, *more):
    arguments = ["--i", f"{k}.mrc", "--ang", f"{k}.star", "--o", f"{k}", "--ctf", "--angpix", PIXEL, *more]
    done = subprocess.run(
        [program("relion_project"), *map(str, arguments)], cwd=folder, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr


def similar_structures(folder, moved=6.0):
    """Two maps, of the same blobs but for some of them, moved by so many Å; return their paths."""
    rng = np.random.default_rng(3)
    one = Blobs.random(11, count=40, radius=26.0, sigma=2.6)
    centres = one.centres.copy()
    some = np.argsort(one.centres[:, 0])[-12:]
    centres[some] += moved * rng.normal(size=3) / np.sqrt(3)
    other = Blobs(centres, one.weights, one.sigma)
    return [write_map(folder / f"{k}.mrc", each.structure(BOX, PIXEL).density, PIXEL) for k, each in ((1, one), (2, other))]


def simulate(folder, count, snr, seed=1):
    """Write two maps, and particles.star with poses: ``count`` particles, the first half of the first structure.

    ``snr`` is the variance of the clean images over that of the noise.
    """
    maps = similar_structures(folder)
    rng = np.random.default_rng(seed)
    each = count // 2
    rows = []
    for k in (1, 2):
        angles = np.stack(euler_from_matrix(random_rotations(each, rng)), axis=1)
        shift, defocus = rng.uniform(-4, 4, (each, 2)), rng.uniform(6000, 14000, each)
        own = [
            (f"{i + 1:06d}@{k}.mrcs", 1, "one", f"{d:.1f}", f"{d - 300:.1f}", f"{7.0 * (i % 25):.1f}",
             *(f"{v:.5f}" for v in (*a, *o)))
            for i, (d, a, o) in enumerate(zip(defocus, angles, shift))
        ]  # fmt: skip
        _write_star(folder / f"{k}.star", own)
        rows += own
    _relion_project(folder, 1)
    clean = mrcfile.read(folder / "1.mrcs").astype(np.float64)
    frequency = np.hypot(np.fft.fftfreq(BOX, PIXEL)[:, None], np.fft.fftfreq(BOX, PIXEL))
    # RELION's spectra are of transforms divided by the number of pixels, and of their real and imaginary parts each.
    per_level = 2 * spectrum(np.minimum(frequency, 0.5 / PIXEL)).sum()
    _write_model(folder / "model.star", clean.var(axis=(1, 2)).mean() / snr / per_level)
    for k in (1, 2):
        _relion_project(folder, k, "--add_noise", "--model_noise", "model.star")
    _write_star(folder / "particles.star", rows)
    return maps
