"""The simulator against brute force, against RELION's simulator, and its files against their truth."""

import gemmi
import mrcfile
import numpy as np
import pytest
import torch

from cryolike_scipion import engine
from cryolike_scipion.engine.errors import InputError
from cryolike_scipion.engine.rotations import distance_deg, matrix_from_euler
from cryolike_scipion.engine.simulate import HalfPlane, Optics, Truth, clean_images, draw_truth, noisy_images
from cryolike_scipion.engine.slices import SliceMaker
from cryolike_scipion.engine.structures import read_structure
from cryolike_scipion.engine.synthetic_structure import generate_structure

from .helpers import shared_data

OPTICS = Optics(voltage_kv=200.0, cs_mm=2.0, amplitude_contrast=0.07, phase_shift_deg=20.0)


def _truth(**change):
    one = {
        "structure": 0,
        "rot": 31.0,
        "tilt": 67.0,
        "psi": -112.0,
        "origin_x": 4.5,
        "origin_y": -7.25,
        "defocus_u": 9000.0,
        "defocus_v": 7500.0,
        "defocus_angle_deg": 33.0,
        "scale": 1.0,
        "offset": 0.0,
    }
    return Truth(**{name: np.array([value]) for name, value in {**one, **change}.items()})


@pytest.fixture(scope="module")
def blob_map(tmp_path_factory):
    """A map of 17 voxels at 3 Å with a few smooth bumps."""
    rng = np.random.default_rng(5)
    axis = np.arange(17) - 8
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    density = np.zeros((17, 17, 17))
    for cz, cy, cx in rng.uniform(-4, 4, (5, 3)):
        density += np.exp(-((z - cz) ** 2 + (y - cy) ** 2 + (x - cx) ** 2) / 4)
    path = tmp_path_factory.mktemp("maps") / "bumps.mrc"
    with mrcfile.new(path, density.astype(np.float32)) as mrc:
        mrc.voxel_size = 3.0
    return path


def _brute_force(path, plane, truth, optics):
    """The image model of the engine, written as plain sums over voxels and Fourier points."""
    density = mrcfile.read(path).astype(np.float64)
    n, a = len(density), 3.0
    z, y, x = np.meshgrid(*[(np.arange(n) - n // 2) * a] * 3, indexing="ij")
    rot, tilt, psi = (np.deg2rad(angle[0]) for angle in (truth.rot, truth.tilt, truth.psi))

    def about_z(t):
        return np.array([[np.cos(t), np.sin(t), 0], [-np.sin(t), np.cos(t), 0], [0, 0, 1]])

    about_y = np.array([[np.cos(tilt), 0, -np.sin(tilt)], [0, 1, 0], [np.sin(tilt), 0, np.cos(tilt)]])
    matrix = about_z(psi) @ about_y @ about_z(rot)
    volts = optics.voltage_kv * 1e3
    lam = 12.2643247 / np.sqrt(volts * (1 + 0.978466e-6 * volts))
    pixels = (np.arange(plane.box) - plane.box // 2) * plane.pixel_size
    image = np.zeros((plane.box, plane.box))
    for ky in np.fft.fftfreq(plane.box, plane.pixel_size):
        for kx in np.fft.fftfreq(plane.box, plane.pixel_size):
            k = np.hypot(kx, ky)
            if k >= plane.k_max * (1 - 1e-12):
                continue
            kz = matrix.T @ [kx, ky, 0]
            value = a**3 * (density * np.exp(-2j * np.pi * (kz[0] * x + kz[1] * y + kz[2] * z))).sum()
            u, v = truth.defocus_u[0], truth.defocus_v[0]
            angle = np.arctan2(ky, kx) - np.deg2rad(truth.defocus_angle_deg[0])
            defocus = (u + v) / 2 + (u - v) / 2 * np.cos(2 * angle)
            chi = (
                np.pi * lam * k**2 * defocus
                - np.pi / 2 * optics.cs_mm * 1e7 * lam**3 * k**4
                + np.deg2rad(optics.phase_shift_deg)
            )
            q = optics.amplitude_contrast
            value *= np.sqrt(1 - q**2) * np.sin(chi) + q * np.cos(chi)
            value *= np.exp(2j * np.pi * (kx * truth.origin_x[0] + ky * truth.origin_y[0]))
            wave = np.exp(2j * np.pi * (kx * pixels[None, :] + ky * pixels[:, None]))
            image += (value * wave).real / (plane.box * plane.pixel_size) ** 2
    return image


@pytest.mark.parametrize("box, pixel", [(20, 3.0), (15, 4.0)])
def test_clean_images_equal_plain_sums(blob_map, box, pixel):
    plane, truth = HalfPlane(box, pixel, 1 / (2 * pixel)), _truth()
    maker = SliceMaker(read_structure(blob_map), plane.points(), dtype=torch.complex128)
    image = clean_images(truth, np.array([0]), maker, plane, OPTICS)[0].numpy()
    expected = _brute_force(blob_map, plane, truth, OPTICS)
    assert np.abs(image - expected).max() < 1e-9 * np.abs(expected).max()


def test_the_particle_sits_at_minus_the_origin(blob_map):
    plane = HalfPlane(32, 3.0, 1 / 6)
    maker = SliceMaker(read_structure(blob_map), plane.points())
    plain, moved = (
        clean_images(_truth(origin_x=ox, origin_y=oy), np.array([0]), maker, plane, OPTICS)[0].numpy()
        for ox, oy in ((0.0, 0.0), (-6.0, 9.0))
    )
    assert np.allclose(moved, np.roll(plain, (-3, 2), axis=(0, 1)), atol=1e-4 * np.abs(plain).max())


def test_clean_images_match_relions_projections():
    """The mean correlation with RELION's own simulated images is what their noise allows."""
    folder = shared_data("two_state")
    block = gemmi.cif.read(str(folder / "two_state_truth.star")).find_block("particles")

    def column(name):
        return np.array([float(text) for text in block.find_loop("_rln" + name)])

    names = (
        "AngleRot",
        "AngleTilt",
        "AnglePsi",
        "OriginXAngst",
        "OriginYAngst",
        "DefocusU",
        "DefocusV",
        "DefocusAngle",
    )
    structure = column("ClassNumber").astype(int) - 1
    truth = Truth(structure, *(column(name) for name in names), np.ones(600), np.zeros(600))
    images = mrcfile.read(folder / "two_state.mrcs")
    plane = HalfPlane(32, 13.1, 1 / 26.2)
    correlations = []
    for state, letter in enumerate("DE"):
        which = np.flatnonzero(structure == state)
        maker = SliceMaker(read_structure(folder / f"50S_state_{letter}.mrc"), plane.points())
        clean = clean_images(truth, which, maker, plane, Optics()).numpy()
        correlations += [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(clean, images[which], strict=True)]
    # SNR 0.1: the best possible correlation is sqrt(0.1 / 1.1) = 0.3015 ± 0.001
    assert 0.296 < np.mean(correlations) < 0.305


def test_poses_are_uniform_and_populations_exact():
    rng = np.random.default_rng(0)
    truth = draw_truth(
        20000,
        np.array([1.0, 3.0]),
        rng,
        max_shift=5.0,
        defocus=(1e4, 2e4),
        astigmatism=300.0,
        scale_spread=0.2,
    )
    assert np.bincount(truth.structure).tolist() == [5000, 15000]
    assert 0.2 < np.mean(truth.structure[:2000] == 0) < 0.3  # shuffled
    assert abs(np.cos(np.deg2rad(truth.tilt)).mean()) < 0.02
    assert abs(np.exp(1j * np.deg2rad(truth.rot)).mean()) < 0.02 and abs(np.exp(1j * np.deg2rad(truth.psi)).mean()) < 0.02
    assert np.abs([truth.origin_x, truth.origin_y]).max() <= 5.0
    assert (truth.defocus_u >= truth.defocus_v).all() and (truth.defocus_u - truth.defocus_v).max() <= 300.001
    assert abs(truth.scale.mean() - 1) < 0.01 and abs(truth.scale.std() - 0.2) < 0.01


def test_noise_has_unit_variance_and_belongs_to_its_particle():
    truth = draw_truth(
        50,
        np.ones(1),
        np.random.default_rng(1),
        max_shift=0,
        defocus=(1e4, 1e4),
        astigmatism=0,
        offset_spread=2.0,
    )
    clean = torch.zeros(50, 24, 24, dtype=torch.float64)
    images = noisy_images(clean, 1.0, truth, np.arange(50), seed=3).numpy()
    assert abs(images.var(axis=(1, 2)).mean() - 1) < 0.03
    assert np.abs(images.mean(axis=(1, 2)) - truth.offset).max() < 0.2
    later = noisy_images(clean[:5], 1.0, truth, np.arange(20, 25), seed=3).numpy()
    assert (later == images[20:25]).all()


@pytest.fixture(scope="module")
def simulated(blob_map, tmp_path_factory):
    out = tmp_path_factory.mktemp("simulated")
    engine.run(
        "simulate",
        structures=[str(blob_map)],
        count=70,
        box=24,
        pixel=3.0,
        snr=0.5,
        seed=9,
        voltage=200.0,
        scale_spread=0.3,
        out=str(out),
    )
    return out


def _table(path):
    block = gemmi.cif.read(str(path)).find_block("particles")
    loop = next(item.loop for item in block if item.loop is not None)
    return {tag[1:]: list(block.find_loop(tag)) for tag in loop.tags}


def test_the_stack_shows_what_the_truth_says(simulated, blob_map):
    table = _table(simulated / "truth.star")

    def column(name):
        return np.array([float(text) for text in table[name]])

    truth = Truth(
        column("rlnClassNumber").astype(int) - 1,
        *(
            column("rln" + name)
            for name in (
                "AngleRot",
                "AngleTilt",
                "AnglePsi",
                "OriginXAngst",
                "OriginYAngst",
                "DefocusU",
                "DefocusV",
                "DefocusAngle",
            )
        ),
        column("cryolikeScale"),
        np.zeros(70),
    )
    plane = HalfPlane(24, 3.0, 1 / 6)
    maker = SliceMaker(read_structure(blob_map), plane.points())
    clean = clean_images(truth, np.arange(70), maker, plane, Optics(voltage_kv=200.0)).numpy()
    clean *= np.sqrt(0.5 / clean.var(axis=(1, 2)).mean())
    with mrcfile.open(simulated / "particles.mrcs") as mrc:
        assert mrc.is_image_stack() and mrc.voxel_size.x == pytest.approx(3.0)
        noise = mrc.data - truth.scale[:, None, None] * clean
    assert abs(noise.var() - 1) < 0.02
    assert abs(np.corrcoef(noise.ravel(), clean.ravel())[0, 1]) < 0.02


def test_the_user_file_lacks_only_the_truth(simulated):
    user, truth = _table(simulated / "particles.star"), _table(simulated / "truth.star")
    assert user == {name: values for name, values in truth.items() if name in user}
    assert set(truth) - set(user) == {
        "rlnAngleRot",
        "rlnAngleTilt",
        "rlnAnglePsi",
        "rlnOriginXAngst",
        "rlnOriginYAngst",
        "rlnClassNumber",
        "cryolikeScale",
    }
    assert user["rlnImageName"][0] == "000001@particles.mrcs" and len(user["rlnImageName"]) == 70
    assert not list(simulated.glob(".*"))


def test_the_seed_decides_everything(simulated, blob_map, tmp_path):
    for seed, same in ((9, True), (10, False)):
        out = tmp_path / str(seed)
        out.mkdir()
        engine.run(
            "simulate",
            structures=[str(blob_map)],
            count=70,
            box=24,
            pixel=3.0,
            snr=0.5,
            seed=seed,
            voltage=200.0,
            scale_spread=0.3,
            out=str(out),
        )
        equal = (mrcfile.read(out / "particles.mrcs") == mrcfile.read(simulated / "particles.mrcs")).all()
        assert equal == same


@pytest.mark.parametrize(
    "change, words",
    [
        ({"populations": [1.0, 2.0]}, "2 populations"),
        ({"populations": [0.0]}, "populations"),
        ({"symmetry": ["C1", "C2"]}, "2 symmetries"),
        ({"defocus_min": 3e4}, "least defocus"),
        ({"structures": ["nowhere.mrc"]}, "nowhere.mrc"),
    ],
)
def test_what_does_not_fit_is_refused(blob_map, tmp_path, change, words):
    given = {"structures": [str(blob_map)], "count": 3, "out": str(tmp_path), **change}
    with pytest.raises(InputError, match=words):
        engine.run("simulate", **given)
    assert not (tmp_path / "particles.star").exists()


def test_a_structure_larger_than_the_box_is_told(blob_map, tmp_path, caplog):
    engine.run("simulate", structures=[str(blob_map)], count=2, box=8, out=str(tmp_path))
    assert "only 24 Å" in caplog.text


def test_the_made_up_protein_has_two_states_and_sensible_bonds():
    first, second = generate_structure(4)
    body, arm = (
        [np.array([atom.pos.tolist() for residue in state[0][chain] for atom in residue]) for state in (first, second)]
        for chain in ("A", "B")
    )
    for part in (body, arm):  # rigid parts: distances within them do not change
        a, b = (np.linalg.norm(xyz[::40, None] - xyz[None, ::40], axis=-1) for xyz in part)
        assert np.allclose(a, b, atol=1e-6)
    everything = [np.concatenate([body[i], arm[i]]) for i in (0, 1)]
    assert np.abs([xyz.mean(axis=0) for xyz in everything]).max() < 1e-6
    assert max(np.linalg.norm(xyz, axis=1).max() for xyz in everything) < 85
    apart = (arm[0].mean(axis=0) - body[0].mean(axis=0)) - (arm[1].mean(axis=0) - body[1].mean(axis=0))
    assert np.linalg.norm(apart) > 15
    bonds = np.linalg.norm(np.diff(body[0][:3], axis=0), axis=1)
    assert np.all((bonds > 1.3) & (bonds < 1.65))
    same = generate_structure(4)[0][0]["A"][0][0].pos.tolist()
    assert same == first[0]["A"][0][0].pos.tolist()
    assert generate_structure(5)[0][0]["A"][0][0].pos.tolist() != same


def test_a_structure_made_up_when_none_is_given(tmp_path):
    engine.run("simulate", count=4, box=32, pixel=6.0, out=str(tmp_path))
    assert len(mrcfile.read(tmp_path / "particles.mrcs")) == 4
    assert {path.name for path in tmp_path.glob("*.cif")} == {"state_1.cif", "state_2.cif"}
    rotation = matrix_from_euler(
        *(
            np.array([float(x) for x in _table(tmp_path / "truth.star")[name]])
            for name in ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
        )
    )
    assert distance_deg(rotation[0], rotation[1]) > 1
