"""Names that several files share.

Standard library only and without imports from this package, because ``setup.py`` and the installer of the
engine's environment read this file before anything is installed.
"""

PACKAGE = "cryolike_scipion"

# ---------------------------------------------------------------- the engine's own environment

# The Python that runs the engine: the path of an interpreter, or a command that activates its environment.
CRYOLIKE_PYTHON = "CRYOLIKE_PYTHON"
CRYOLIKE_ENV_ACTIVATION = "CRYOLIKE_ENV_ACTIVATION"
# The Python (3.10 or later) from which the installer makes the engine's environment.
CRYOLIKE_BASE_PYTHON = "CRYOLIKE_BASE_PYTHON"

ENGINE_BINARY = "cryolike"
# Raised whenever ENGINE_REQUIREMENTS change, so that an older environment is not taken for a current one.
ENGINE_ENVIRONMENT_VERSION = "1.0"
ENGINE_READY = "engine-ready.json"
ENGINE_MINIMUM_PYTHON = (3, 10)

# torch comes first and pinned: unpinned, packages that depend on it pull gigabytes of CUDA libraries.
ENGINE_REQUIREMENTS = (
    "torch==2.13.0",
    "numpy>=1.26",
    "scipy>=1.10",
    "finufft>=2.4",
    "gemmi>=0.7",
    "h5py>=3.8",
    "mrcfile>=1.4",
    "tqdm>=4.60",
    "matplotlib>=3.8",
)
# What has to be found in a Python for the engine to run there.
ENGINE_MODULES = ("torch", "numpy", "scipy", "finufft", "gemmi", "h5py", "mrcfile", "tqdm", "matplotlib")

# ---------------------------------------------------------------- columns of the STAR files

ITEM_ID = "cryolikeItemId"
COEFFICIENTS = "cryolikeCoefficients"
COEFFICIENTS_HASH = "cryolikeCoefficientsHash"

STATUS_OK = "ok"
STATUSES = (STATUS_OK, "constant", "nan", "missing")

# ---------------------------------------------------------------- names inside a protocol's extra folder

JOB_FILE = "job.json"
INPUT_STAR = "input_particles.star"
INPUT_FOLDER = "inputs"
RESULT_FOLDER = "result"
OUTPUT_STAR = "particles.star"
OUTPUT_TEMPLATES = "templates.json"
OUTPUT_MATRIX = "matrix.npy"
OUTPUT_SCORES = "scores.h5"
OUTPUT_REPORT = "report.html"
SCALE_FILE = "scale.json"
OUTPUT_GALLERY = "gallery.npz"
OUTPUT_LOG = "log.txt"
DENSITY_FILE = "structures/%03d.mrc"

# λ = WAVELENGTH_VOLT / √(V (1 + RELATIVISTIC_PER_VOLT V)) Å with V in volts: h/√(2 m e V) with the relativistic correction
# e/(2 m c²).
WAVELENGTH_VOLT = 12.2643247
RELATIVISTIC_PER_VOLT = 0.978466e-6
