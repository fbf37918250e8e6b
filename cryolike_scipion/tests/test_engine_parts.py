"""Particles scored in parts: one contrast prior for all, and any particle file as one STAR file."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cryolike_scipion import cli, engine
from cryolike_scipion.engine import inspect_run
from cryolike_scipion.engine.aberrations import Aberrations
from cryolike_scipion.engine.errors import InputError
from cryolike_scipion.engine.particles import OpticsGroup, read_particles
from cryolike_scipion.engine.results import load_results
from cryolike_scipion.engine.shared_scale import SCALE_FILE, read_scale, write_scale

from .likelihood_runs import COUNT, run
from .particle_files import cryosparc_array, random_images, write_cryosparc, write_set, write_stack

EXHAUSTIVE = {"search": "exhaustive", "no_report": True}


@pytest.fixture(scope="module")
def prior(small, tmp_path_factory):
    """The folder of a run that only learned the prior."""
    folder, maps = small
    out = tmp_path_factory.mktemp("prior")
    options = {"angular_step": 25.0, "resolution": 14.0, "levels": 0, "max_shift": 8.0, "search": "exhaustive"}
    engine.run("likelihood", particles=[str(folder / "input.star")], structures=maps, learn_only=True, out=str(out), **options)
    return out


@pytest.fixture(scope="module")
def whole(small, prior, tmp_path_factory):
    return run(small, tmp_path_factory.mktemp("whole"), scale_from=str(prior), **EXHAUSTIVE)


@pytest.fixture(scope="module")
def merged(small, prior, tmp_path_factory):
    """The folder of two parts that were merged, and theirs."""
    root = tmp_path_factory.mktemp("parts")
    for name, rows in (("a", "1:9"), ("b", "10:")):
        run(small, root / name, scale_from=str(prior), rows=rows, **EXHAUSTIVE)
    engine.run("merge", runs=[str(root / "b"), str(root / "a")], out=str(root / "all"))
    return root / "all"


def test_learning_alone_writes_the_prior_and_no_result(prior):
    (group,) = json.loads((prior / SCALE_FILE).read_text())["groups"]
    assert group["prior"]["mu"] > 0 and group["prior"]["tau"] > 0
    assert not (prior / "particles.star").exists() and not (prior / "scores.h5").exists()


def test_parts_with_one_prior_are_the_whole(whole, merged):
    parts = load_results(merged)
    assert parts.row.tolist() == list(range(1, COUNT + 1))
    assert np.allclose(parts.integrated, whole.integrated, atol=0.02)
    assert np.allclose(parts.structure_posterior, whole.structure_posterior, atol=0.01)
    assert parts.parameters["scale_prior"]["groups"] == whole.parameters["scale_prior"]["groups"]
    assert (merged / "report.html").exists()
    assert not (merged.parent / "a" / "report.html").exists(), "parts write none"


def test_another_prior_is_another_result(small, prior, whole, tmp_path):
    content = json.loads((prior / SCALE_FILE).read_text())
    content["groups"][0]["prior"]["mu"] *= 0.5
    (tmp_path / SCALE_FILE).write_text(json.dumps(content))
    other = run(small, tmp_path / "out", scale_from=str(tmp_path), **EXHAUSTIVE)
    assert np.abs(other.integrated - whole.integrated).max() > 0.5


def test_a_particle_of_a_merged_result_is_inspected_in_its_own_run(merged, tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(inspect_run, "load_results", lambda folder: read.append(Path(folder).name) or load_results(folder))
    engine.run("inspect", run=str(merged), row=2, out=str(tmp_path / "other.npz"))
    engine.run("inspect", run=str(merged), row=12, out=str(tmp_path / "of_all.npz"))
    assert read == ["all", "a", "all", "b"], "scores of parts without the particle need not be read"
    engine.run("inspect", run=str(merged.parent / "b"), row=3, out=str(tmp_path / "of_part.npz"))
    with np.load(tmp_path / "of_all.npz") as one, np.load(tmp_path / "of_part.npz") as other:
        assert sorted(one.files) == sorted(other.files)
        assert all(np.array_equal(one[name], other[name]) for name in one.files)


def optics(name="first", **other):
    return replace(OpticsGroup(name, 1.5, 64, 300.0, 2.7, 0.1), **other)


CONDITIONS = {"structures": ["a", "b"], "k_max": 0.1, "images": {"invert": False}}


def test_priors_are_found_by_all_values_of_a_group_and_else_averaged(tmp_path, caplog):
    learned = {"kind": "learned", "groups": {"0": {"mu": 2.0, "tau": 1.0}, "1": {"mu": 4.0, "tau": 3.0}}}
    tilted = Aberrations(odd=(0.1, 0.2))
    write_scale(tmp_path, learned, [optics(), optics(voltage_kv=200.0, aberrations=tilted)], CONDITIONS)
    asked = [optics(voltage_kv=200.0, aberrations=tilted), optics("third"), optics(box=32), optics(voltage_kv=200.0), optics()]
    found = read_scale(tmp_path, "learned", asked, CONDITIONS)["groups"]
    assert found["0"] == {"mu": 4.0, "tau": 3.0}
    assert found["1"] == found["2"] == found["3"] == {"mu": 3.0, "tau": 2.0}
    assert found["4"] == {"mu": 2.0, "tau": 1.0}
    assert caplog.text.count("the mean of its groups is used") == 3
    write_scale(tmp_path, {"kind": "free", "groups": {"0": {"flat": True}}}, [optics()], CONDITIONS)
    assert read_scale(tmp_path, "free", [optics("new")], CONDITIONS)["groups"] == {"0": {"flat": True}}


@pytest.mark.parametrize(
    "text", [None, "{", '{"format": 1}', '{"format": 2, "kind": "learned", "conditions": {}, "groups": []}']
)
def test_a_prior_that_cannot_be_read_is_refused(tmp_path, text):
    if text is not None:
        (tmp_path / SCALE_FILE).write_text(text)
    with pytest.raises(InputError, match="contrast prior of this run cannot be read"):
        read_scale(tmp_path, "learned", [optics()], CONDITIONS)


@pytest.mark.parametrize(
    ("kind", "other", "words"),
    [
        ("free", {}, "is 'learned', and --scale is 'free'"),
        ("learned", {"structures": ["a", "c"]}, "with other structures"),
        ("learned", {"k_max": 0.2, "images": {"invert": True}}, "with another resolution and another preparation"),
    ],
)
def test_a_prior_of_another_kind_or_of_other_conditions_is_refused(tmp_path, kind, other, words):
    write_scale(tmp_path, {"kind": "learned", "groups": {"0": {"mu": 2.0, "tau": 1.0}}}, [optics()], CONDITIONS)
    with pytest.raises(InputError, match=words):
        read_scale(tmp_path, kind, [optics()], {**CONDITIONS, **other})


def test_runs_refuse_a_prior_that_is_not_theirs(small, prior, tmp_path):
    before = (prior / SCALE_FILE).read_bytes()
    with pytest.raises(InputError, match="would overwrite this input"):
        run(small, prior, scale_from=str(prior), **EXHAUSTIVE)
    for options, words in (({"scale": "free"}, "--scale is 'free'"), ({"resolution": 16.0}, "with another resolution")):
        with pytest.raises(InputError, match=words):
            run(small, tmp_path, scale_from=str(prior), **EXHAUSTIVE, **options)
    with pytest.raises(InputError, match="with other structures"):
        run((small[0], small[1][:1]), tmp_path, scale_from=str(prior), **EXHAUSTIVE)
    assert (prior / SCALE_FILE).read_bytes() == before and not (prior / "particles.star").exists()


# ---------------------------------------------------------------- the verb star


def test_a_cryosparc_file_becomes_a_star_file_with_full_names(tmp_path, capsys):
    (tmp_path / "J1").mkdir()
    write_stack(tmp_path / "J1" / "images.mrcs", random_images(5))
    source = write_cryosparc(tmp_path / "J1" / "particles.cs", cryosparc_array(5))
    out = tmp_path / "new" / "particles.star"
    assert cli.main(["star", "--particles", str(source), "--out", str(out)]) == 0
    before, after = read_particles(source), read_particles(out)
    assert after.stacks == before.stacks == ((tmp_path / "J1" / "images.mrcs").resolve(),)
    assert str(before.stacks[0]) in after.image_names()[0]
    for name in ("frame", "defocus_u", "defocus_v", "defocus_angle_deg", "phase_shift_deg", "sign"):
        assert np.allclose(getattr(before, name), getattr(after, name), atol=1e-5), name
    assert set(after.sign) == {-1.0}
    assert sorted(path.name for path in out.parent.iterdir()) == ["particles.star"], "no log in a folder that may be anyone's"


def test_star_writes_over_no_input_and_no_folder(tmp_path, capsys):
    star = write_set(tmp_path, 3)
    text = star.read_bytes()
    assert cli.main(["star", "--particles", str(star), "--out", str(star)]) == 2
    assert star.read_bytes() == text
    assert cli.main(["star", "--particles", str(star), "--out", str(tmp_path)]) == 2
    assert "Give the name of a STAR file" in capsys.readouterr().err
    odd = star.rename(tmp_path / "set[1].star")  # as a pattern it does not stand for itself
    assert cli.main(["star", "--particles", str(odd), "--out", str(odd)]) == 2
    assert odd.read_bytes() == text


def test_star_keeps_the_format_that_relion_needs_behind_a_name(tmp_path):
    star = write_set(tmp_path, 3)
    (tmp_path / "images.mrcs").rename(tmp_path / "images.mrc")
    star.write_text(star.read_text().replace("@images.mrcs", "@images.mrc:mrcs"))
    engine.run("star", particles=[str(star)], out=str(tmp_path / "full.star"))
    found = read_particles(tmp_path / "full.star")
    assert found.image_names()[2] == f"000003@{tmp_path}/images.mrc:mrcs" and found.stacks == (tmp_path / "images.mrc",)
