"""Small particle files for tests: STAR tables, image stacks and cryoSPARC arrays."""

import struct
from pathlib import Path

import numpy as np

MODES = {"i1": 0, "i2": 1, "f4": 2, "u2": 6, "f2": 12}

OPTICS = """# version 30001

data_optics

loop_
_rlnOpticsGroup #1
_rlnOpticsGroupName #2
_rlnImagePixelSize #3
_rlnImageSize #4
_rlnImageDimensionality #5
_rlnVoltage #6
_rlnSphericalAberration #7
_rlnAmplitudeContrast #8
1 opticsGroup1 2.500000 8 2 300.0 2.7 0.1
"""

PARTICLES = """
# version 30001

data_particles

loop_
_rlnImageName #1
_rlnOpticsGroup #2
_rlnDefocusU #3
_rlnDefocusV #4
_rlnDefocusAngle #5
"""


def write_stack(path, images, kind="f4", order="<", extended=0, claimed=None):
    """Write images [n, y, x] as an MRC stack whose header says `claimed` images (default: n)."""
    images = np.asarray(images)
    header = bytearray(1024)
    count, rows, columns = images.shape
    struct.pack_into(f"{order}4i", header, 0, columns, rows, claimed or count, MODES[kind])
    struct.pack_into(f"{order}i", header, 92, extended)
    header[208:212] = b"MAP "
    header[212:216] = b"\x44\x44\x00\x00" if order == "<" else b"\x11\x11\x00\x00"
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(header) + bytes(extended) + images.astype(f"{order}{kind}").tobytes())
    return path


def random_images(count=4, edge=8, seed=0):
    """Noise images, float32 [count, edge, edge]."""
    return np.random.default_rng(seed).normal(size=(count, edge, edge)).astype(np.float32)


def write_set(folder, count=4, optics=OPTICS, head=PARTICLES, rows=None, tail=""):
    """Write ``images.mrcs`` and ``particles.star`` of RELION 3.1 into a folder; return the STAR file."""
    folder = Path(folder)
    write_stack(folder / "images.mrcs", random_images(count))
    if rows is None:
        rows = [f"{i + 1:06d}@images.mrcs 1 {10000 + i}.10 {9000 + i}.0 {10 * i}" for i in range(count)]
    star = folder / "input.star"
    star.write_text(optics + head + "".join(f"{row}\n" for row in rows) + tail, encoding="utf-8")
    return star


def cryosparc_array(count, **fields):
    """An array as in a .cs file, of `count` particles; `fields`, with __ for /, replace or remove (None)."""
    values = {
        "uid": np.arange(count, dtype=np.uint64) + np.uint64(2**63),
        "blob/path": np.full(count, b">J1/images.mrcs"),
        "blob/idx": np.arange(count, dtype=np.uint32),
        "blob/shape": np.full((count, 2), 8, dtype=np.uint32),
        "blob/psize_A": np.full(count, 2.5, np.float32),
        "blob/sign": np.full(count, -1, np.float32),
        "ctf/exp_group_id": np.zeros(count, np.uint32),
        "ctf/accel_kv": np.full(count, 300, np.float32),
        "ctf/cs_mm": np.full(count, 2.7, np.float32),
        "ctf/amp_contrast": np.full(count, 0.1, np.float32),
        "ctf/df1_A": np.full(count, 12345.678, np.float32),
        "ctf/df2_A": np.full(count, 12000, np.float32),
        "ctf/df_angle_rad": np.full(count, 0.5, np.float32),
        "ctf/phase_shift_rad": np.full(count, np.pi / 2, np.float32),
        "ctf/bfactor": np.zeros(count, np.float32),
    }
    values.update({name.replace("__", "/"): value for name, value in fields.items()})
    values = {name: np.asarray(value) for name, value in values.items() if value is not None}
    array = np.zeros(count, dtype=[(name, value.dtype, value.shape[1:]) for name, value in values.items()])
    for name, value in values.items():
        array[name] = value
    return array


def write_cryosparc(path, array):
    """Save a structured array as a .cs file."""
    with open(path, "wb") as file:
        np.save(file, array, allow_pickle=False)
    return path
