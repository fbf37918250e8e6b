"""Runs with ``--noise radial``: without colour they are those with white noise; their spectra are kept, shared and reported."""

import dataclasses
import json

import mrcfile
import numpy as np
import pytest

from cryolike_scipion import engine
from cryolike_scipion.engine import likelihood_run
from cryolike_scipion.engine.bands import band_images
from cryolike_scipion.engine.conversion import convert
from cryolike_scipion.engine.errors import InputError
from cryolike_scipion.engine.inspect_run import landscape
from cryolike_scipion.engine.likelihood import ScalePrior
from cryolike_scipion.engine.likelihood_setup import prepare_run, with_noise
from cryolike_scipion.engine.noise_spectrum import NoiseModel
from cryolike_scipion.engine.polar_settings import PolarSettings
from cryolike_scipion.engine.report import render
from cryolike_scipion.engine.results import load_results
from cryolike_scipion.parameters import complete
from cryolike_scipion.plots.noise import noise_spectra

from .small_sets import PIXEL, SEARCH, rewrite_stack, score, simulate, with_columns, write_maps

QUICK = {"angular_step": 30.0, "no_report": True, "pilot": 20}
COUNT = 24


def colour(k):
    return 1.0 + 40.0 * np.exp(-k * PIXEL * 16.0)


def add_coloured_noise(data):
    box = data.shape[-1]
    k = np.hypot(np.fft.fftfreq(box, PIXEL)[:, None], np.fft.fftfreq(box, PIXEL))
    white = np.random.default_rng(0).standard_normal(data.shape)
    return data + 2 * np.fft.ifft2(np.fft.fft2(white) * np.sqrt(colour(k))).real


@pytest.fixture(scope="module")
def coloured(tmp_path_factory):
    """Folder and maps of particles with noise of which the most is coloured."""
    folder = tmp_path_factory.mktemp("coloured")
    maps = write_maps(folder)
    simulate(folder, maps, count=COUNT, snr=5.0)
    rewrite_stack(folder / "particles.mrcs", add_coloured_noise)
    return folder, maps


@pytest.fixture(scope="module")
def radial(coloured, tmp_path_factory):
    folder, maps = coloured
    out = tmp_path_factory.mktemp("radial")
    return out, score(out, folder / "particles.star", maps, noise="radial", **QUICK)


def _assert_same(one, other):
    assert np.array_equal(one.integrated, other.integrated) and np.array_equal(one.cc, other.cc)
    assert one.parameters["polar"] == other.parameters["polar"]


@pytest.mark.parametrize("options", [{}, {"mask_diameter": 70.0}, {"precision": "double"}], ids=["plain", "mask", "double"])
def test_a_flat_spectrum_gives_what_white_noise_gives(coloured, options):
    folder, maps = coloured
    given = {**SEARCH, "particles": [str(folder / "particles.star")], "structures": maps, "out": "out", **options}
    white = prepare_run(complete("likelihood", given), "cpu")
    flat = with_noise(white, NoiseModel(0.5 / PIXEL, ((0.0,) * 6,)))
    assert flat.settings.plain() != white.settings.plain() and PolarSettings.from_plain(flat.settings.plain()) == flat.settings
    rows = np.arange(COUNT)
    np.testing.assert_allclose(flat.ring_ctf, white.ring_ctf, rtol=1e-12)
    if options.get("mask_diameter"):
        np.testing.assert_allclose(flat.kept, white.kept, rtol=1e-6)
    tolerance = 1e-10 if "precision" in options else 5e-6
    found = []
    for setup in (white, flat):
        images = convert(setup.particles, rows, setup.settings, setup.rule, "stop").images
        settings = setup.settings
        where = settings.images, settings.window, settings.noise
        found.append([images, band_images(images, settings.grid, setup.bands[0], setup.particles, rows, *where)])
    for one, other in zip(*found):
        for field in dataclasses.fields(one):
            a, b = (getattr(images, field.name).numpy() for images in (one, other))
            # Weights of the power and of the offset are kept in single precision.
            bound = max(tolerance, 1e-6 if field.name in ("power", "offset") else 0.0)
            assert np.abs(a - b).max() <= bound * np.abs(a).max(), field.name


def test_the_spectrum_is_found_refined_and_kept_with_the_scores(radial):
    out, results = radial
    k, power = (results.grids[name].values for name in ("noise_frequency", "noise_power"))
    true = colour(k) + 1 / 4  # of the white noise that the simulation added before
    true /= np.average(true, weights=k)
    error = np.log(power[0] / true)[10:]
    print(f"error of ln P beyond the lowest tenth: root mean square {error.std():.3f}")
    assert error.std() < 0.2 and power.shape == (1, 101)
    assert results.grids["noise_power"].unit == "1" and "mean 1" in results.grids["noise_power"].meaning
    scale = json.loads((out / "scale.json").read_text())
    assert scale["conditions"]["noise"] == "radial"
    noise = results.parameters["polar"]["noise"]
    assert scale["groups"][0]["noise"] == {name: noise[name][0] for name in ("spectra", "background")}


def test_the_report_shows_the_spectrum_that_was_used(radial):
    _, results = radial
    frequency, power = (results.grids[name].values for name in ("noise_frequency", "noise_power"))
    axis = noise_spectra(frequency, power, 0.1, ["one"]).axes[0]
    assert np.array_equal(axis.lines[0].get_ydata(), power[0])
    text = render(results, "title")
    assert "<h2>Noise</h2>" in text and "spectra" not in text.partition("<h2>Parameters</h2>")[2]
    white = dataclasses.replace(results, grids={})
    assert "<h2>Noise</h2>" not in render(white, "title")


def test_a_run_that_is_continued_takes_the_spectrum_that_it_found(coloured, radial, monkeypatch):
    folder, maps = coloured
    out, first = radial
    for path in (out / "chunks").glob("*.npz"):
        path.unlink()
    monkeypatch.setattr(likelihood_run, "learn_noise", None)
    _assert_same(score(out, folder / "particles.star", maps, noise="radial", **QUICK), first)


def test_parts_share_spectrum_and_scale(coloured, radial, tmp_path):
    folder, maps = coloured
    out, first = radial
    options = {"noise": "radial", "scale_from": str(out), **QUICK}
    parts = [str(tmp_path / name) for name in "ab"]
    for part, rows in zip(parts, ("1:10", "11:")):
        score(part, folder / "particles.star", maps, rows=rows, **options)
    engine.run("merge", runs=parts, out=str(tmp_path / "whole"))
    whole = load_results(tmp_path / "whole")
    np.testing.assert_allclose(whole.integrated, first.integrated, atol=0.02)  # rows that are sampled depend on the block
    np.testing.assert_allclose(whole.cc, first.cc, atol=1e-5)


def test_runs_of_other_structures_share_a_spectrum_and_can_be_merged(coloured, tmp_path):
    folder, maps = coloured
    for name, one, more in (("a", maps[:1], {}), ("b", maps[1:], {}), ("c", maps[1:], {"noise_from": str(tmp_path / "a")})):
        score(tmp_path / name, folder / "particles.star", one, noise="radial", mask_diameter=70.0, **more, **QUICK)
    with pytest.raises(InputError, match="noise-from"):
        engine.run("merge", runs=[str(tmp_path / "a"), str(tmp_path / "b")], out=str(tmp_path / "no"))
    engine.run("merge", runs=[str(tmp_path / "a"), str(tmp_path / "c")], out=str(tmp_path / "yes"))
    assert load_results(tmp_path / "yes").integrated.shape == (2, COUNT)


@pytest.fixture(scope="module")
def two_micrographs(tmp_path_factory):
    """Particles of two micrographs, of which one has coloured and the other white noise, and of a third with few."""
    folder = tmp_path_factory.mktemp("micrographs")
    maps = write_maps(folder)
    simulate(folder, maps, count=52, snr=5.0)
    which = np.arange(52) % 2
    which[[11, 30]] = 2

    def change(data):
        white = 2 * np.random.default_rng(1).standard_normal(data.shape)
        return np.where((which == 0)[:, None, None], add_coloured_noise(data), data + white)

    rewrite_stack(folder / "particles.mrcs", change)
    names = np.array(["a.mrc", "b.mrc", "c.mrc"])[which]
    return with_columns(folder / "particles.star", folder / "named.star", rlnMicrographName=names), maps, which


def test_micrographs_have_spectra_of_their_own(two_micrographs, tmp_path):
    star, maps, which = two_micrographs
    options = {"noise": "radial", "noise_per": "micrograph", **QUICK}
    found = score(tmp_path / "whole", star, maps, **options)
    number = found.grids["noise_micrograph"].values
    assert np.array_equal(number, np.array([1, 2, 0])[which])
    k, ratio, group = (found.grids[name].values for name in ("noise_frequency", "noise_ratio", "noise_power"))
    inside = slice(15, None)
    for power, true in zip(ratio * group, (colour(k) + 1 / 4, np.ones_like(k))):
        error = np.log(power / true)[inside]
        print("error of ln P, but for a factor: root mean square", error.std().round(3))
        assert error.std() < 0.35
    # The run that is continued, and parts that share its group's spectrum, have those of the micrographs again.
    for path in (tmp_path / "whole" / "chunks").glob("*.npz"):
        path.unlink()
    _assert_same(score(tmp_path / "whole", star, maps, **options), found)
    part = score(tmp_path / "part", star, maps, rows="1:40", scale_from=str(tmp_path / "whole"), **options)
    assert part.grids["noise_ratio"].values.shape == ratio.shape
    assert np.abs(np.log(part.grids["noise_ratio"].values / ratio))[:, inside].max() < 0.5
    engine.run("inspect", run=str(tmp_path / "whole"), row=2, out=str(tmp_path / "one.npz"), landscape=True)
    given = {**SEARCH, **options, "particles": [str(star)], "structures": maps, "out": "out"}
    noise = NoiseModel.from_plain(found.parameters["polar"]["noise"])
    setup = with_noise(prepare_run(complete("likelihood", given), "cpu"), noise)
    prior = ScalePrior(**found.parameters["scale_prior"]["groups"]["0"])
    with np.load(tmp_path / "one.npz") as look:
        np.testing.assert_allclose(look["view_score_001"], landscape(setup, 1, 0, prior)["view_score_001"], atol=1e-3)


def test_rows_are_whitened_by_their_micrographs(two_micrographs):
    star, maps, which = two_micrographs
    given = {**SEARCH, "particles": [str(star)], "structures": maps, "out": "out", "noise": "radial"}
    setup = prepare_run(complete("likelihood", given | {"noise_per": "micrograph"}), "cpu")
    noise, rows = setup.settings.noise, np.array([3, 0, 11, 1])
    assert set(which[rows]) == {0, 1, 2}
    together = convert(setup.particles, rows, setup.settings, setup.rule, "stop").images
    for i, row in enumerate(rows):
        number = noise.micrographs.of_particle[row]
        assert (number < 0) == (which[row] == 2)
        change = noise.micrographs.differences[number] if number >= 0 else 0.0
        own = dataclasses.replace(setup.settings, noise=NoiseModel(noise.top, (tuple(np.array(noise.spectra[0]) + change),)))
        alone = convert(setup.particles, rows[i : i + 1], own, setup.rule, "stop").images
        for name in ("matched", "power", "offset", "image_power"):
            a, b = (getattr(images, name).numpy() for images in (together.take([i]), alone))
            assert np.abs(a - b).max() <= 1e-5 * np.abs(a).max(), name


def test_particles_are_simulated_with_the_noise_of_a_run(coloured, radial, tmp_path):
    _, maps = coloured
    out, results = radial
    simulate(tmp_path, maps, count=200, snr=1e-6, noise_from=str(out))
    with mrcfile.open(tmp_path / "particles.mrcs") as file:
        images = np.array(file.data, dtype=np.float64)
    assert images.var() == pytest.approx(1.0, abs=0.02)
    box = images.shape[-1]
    frequency = np.hypot(np.fft.fftfreq(box, PIXEL)[:, None], np.fft.fftfreq(box, PIXEL))
    ring = np.rint(frequency * box * PIXEL).astype(int)
    power = (np.abs(np.fft.fft2(images)) ** 2).mean(axis=0)
    wanted = NoiseModel.from_plain(results.parameters["polar"]["noise"]).power(0, frequency)
    ratio = np.array([power[ring == r].mean() / wanted[ring == r].mean() for r in range(1, box // 2)])
    assert np.abs(ratio / ratio.mean() - 1).max() < 0.15
    (tmp_path / "white").mkdir()
    scale = json.loads((out / "scale.json").read_text())
    scale["conditions"]["noise"] = "white"
    (tmp_path / "white" / "scale.json").write_text(json.dumps(scale))
    with pytest.raises(InputError, match="is white"):
        simulate(tmp_path, maps, count=2, noise_from=str(tmp_path / "white"))


def test_what_does_not_fit_together_is_refused(coloured, radial, tmp_path):
    folder, maps = coloured
    out, _ = radial
    star = folder / "particles.star"
    with pytest.raises(InputError, match="another noise model"):
        score(tmp_path / "a", star, maps, scale_from=str(out), **QUICK)
    with pytest.raises(InputError, match="--noise radial"):
        score(tmp_path / "a", star, maps, noise_from=str(out), **QUICK)
    with pytest.raises(InputError, match="both"):
        score(tmp_path / "a", star, maps, noise="radial", noise_from=str(out), scale_from=str(out), **QUICK)
    with pytest.raises(InputError, match="cannot be read"):
        score(tmp_path / "a", star, maps, noise="radial", noise_from=str(tmp_path), **QUICK)


def test_coefficients_made_for_white_noise_are_not_used(coloured, tmp_path, caplog):
    folder, maps = coloured
    engine.run("particles", particles=[str(folder / "particles.star")], out=str(tmp_path / "polar"), resolution=10.0)
    given = {**SEARCH, "particles": [str(tmp_path / "polar")], "structures": maps, "out": "out"}
    with caplog.at_level("INFO"):
        setup = prepare_run(complete("likelihood", given | {"noise": "radial"}), "cpu")
    assert setup.cache is None and "converted afresh" in caplog.text
    assert prepare_run(complete("likelihood", given), "cpu").cache is not None
