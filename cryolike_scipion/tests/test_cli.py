"""The command line as a user meets it: help, exit status, one-line messages, job files, the log."""

import json
import os
import subprocess
import sys
from pathlib import Path

import mrcfile
import numpy as np
import pytest

from cryolike_scipion import __version__, cli, engine
from cryolike_scipion.engine.errors import InputError
from cryolike_scipion.parameters import SUMMARIES, VERBS, ParameterError

from .helpers import REPOSITORY

# mrcfile warns when it writes them.
pytestmark = pytest.mark.filterwarnings("ignore:Data array contains NaN:RuntimeWarning")

NASTY = "a b' \" $(touch x) % ü\n.star"


def command(*arguments, **options):
    """Run the command in a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(
        [sys.executable, "-m", "cryolike_scipion", *map(str, arguments)],
        capture_output=True, text=True, env=environment, timeout=120, **options,
    )  # fmt: skip


# ---------------------------------------------------------------- help and options


def test_help_names_every_verb():
    run = command("--help")
    assert run.returncode == 0
    assert all(verb in run.stdout for verb in VERBS)


def _packages_loaded_by(code):
    """Packages beyond the standard library that a piece of code imports in a fresh process."""
    script = (
        "import sys\nbefore = set(sys.modules)\n"
        f"{code}\n"
        "new = {name.split('.')[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)\n"
        "print('packages', *sorted(new))"
    )
    run = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    return set(run.stdout.splitlines()[-1].split()[1:])


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["likelihood", "--help"], ["likelihood", "--max-shift", "x"]])
def test_help_and_refused_options_import_nothing_but_this_package(arguments):
    code = f"from cryolike_scipion.cli import main\ntry: main({arguments})\nexcept SystemExit: pass"
    assert _packages_loaded_by(code) == {"cryolike_scipion"}


def test_input_is_read_without_the_plotting_package():
    loaded = _packages_loaded_by("import cryolike_scipion.engine.likelihood_run, cryolike_scipion.engine.particles_run")
    assert "torch" in loaded
    assert not loaded & {"matplotlib", "pwem", "pyworkflow"}


@pytest.mark.parametrize("verb", VERBS)
def test_help_names_every_option_with_its_unit(verb, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main([verb, "--help"])
    assert caught.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for parameter in VERBS[verb]:
        assert (parameter.metavar if parameter.positional else parameter.flag) in text
        if parameter.unit in ("Å", "degree", "GiB"):
            assert f"[{parameter.unit}" in text
    assert SUMMARIES[verb][1:20] in text


def test_version(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert capsys.readouterr().out.strip() == f"cryolike-scipion {__version__}"


LIKELIHOOD = ["likelihood", "--particles", "a", "--structures", "b", "--out", "o"]


@pytest.mark.parametrize("arguments, words", [
    ([], "required"),
    (["guess"], "guess"),
    (["likelihood", "--particles", "a.star", "--out", "o"], "--structures"),
    ([*LIKELIHOOD, "--max-shift", "far"], "not 'far'"),
    ([*LIKELIHOOD, "--search", "thorough"], "thorough"),
    ([*LIKELIHOOD, "--resolution", "0"], "more than 0"),
    ([*LIKELIHOOD, "--res", "4"], "--res"),
    (["simulate", "--count", "2.5", "--out", "o"], "whole number"),
])  # fmt: skip
def test_bad_options_are_one_line_and_status_2(arguments, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    try:
        status = cli.main(arguments)
    except SystemExit as stop:
        status = stop.code
    error = capsys.readouterr().err
    assert status == 2 and words in error
    assert error.count("\n") == 1 and "Traceback" not in error
    assert list(tmp_path.iterdir()) == []


def test_options_arrive_as_parameters(monkeypatch, tmp_path):
    seen = {}
    monkeypatch.setattr(engine, "run", lambda verb, progress, **given: seen.update(given, verb=verb))
    options = "--structures 1.mrc --structures 2.cif --symmetry C4 C1 --max-shift 12 --angular-step auto --invert"
    status = cli.main(["likelihood", "--particles", "a b.star", "c.star", *options.split(), "--out", str(tmp_path)])
    assert status == 0
    assert seen["verb"] == "likelihood" and seen["particles"] == ["a b.star", "c.star"]
    assert seen["structures"] == ["1.mrc", "2.cif"] and seen["symmetry"] == ["C4", "C1"]
    assert seen["max_shift"] == 12.0 and seen["angular_step"] is None and seen["invert"] is True
    assert seen["no_normalise"] is False


# ---------------------------------------------------------------- what can happen while working


def _failing(monkeypatch, error):
    def fail(verb, progress, **given):
        raise error

    monkeypatch.setattr(engine, "run", fail)


def test_bad_input_is_one_line_and_status_2(monkeypatch, tmp_path, capsys):
    _failing(monkeypatch, InputError("what is wrong", file=NASTY, row=3, remedy="Do this"))
    assert cli.main(["simulate", "--out", str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1 and "Traceback" not in captured.err + captured.out
    assert "row 3" in captured.err and "Do this." in captured.err
    assert "what is wrong" in (tmp_path / "log.txt").read_text(encoding="utf-8")


def test_the_unexpected_is_status_1_with_its_traceback_in_the_log(monkeypatch, tmp_path, capsys):
    _failing(monkeypatch, ZeroDivisionError("deep\ndown"))
    assert cli.main(["simulate", "--out", str(tmp_path)]) == 1
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1 and str(tmp_path / "log.txt") in captured.err
    log = (tmp_path / "log.txt").read_text(encoding="utf-8")
    assert "Traceback" in log and "ZeroDivisionError" in log


def test_an_interrupt_is_status_130(monkeypatch, tmp_path, capsys):
    _failing(monkeypatch, KeyboardInterrupt())
    assert cli.main(["simulate", "--out", str(tmp_path)]) == 130
    assert "interrupted" in capsys.readouterr().err


def test_a_missing_engine_package_says_how_to_install_it(monkeypatch, tmp_path, capsys):
    _failing(monkeypatch, ModuleNotFoundError("no", name="finufft"))
    assert cli.main(["simulate", "--out", str(tmp_path)]) == 2
    assert "pip install" in capsys.readouterr().err


def test_an_output_folder_that_cannot_be_made(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert cli.main(["simulate", "--out", str(tmp_path / "file" / "below")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "--out" in error


def test_an_unknown_device(tmp_path, capsys):
    start = ["particles", "--particles", "particles.star", "--out", str(tmp_path)]
    assert cli.main([*start, "--device", "abacus"]) == 2
    assert "abacus" in capsys.readouterr().err
    assert cli.main([*start, "--device", "cuda:99"]) == 2
    assert "cuda:99" in capsys.readouterr().err


def test_threads_are_set_before_the_work(monkeypatch, tmp_path):
    import torch

    from cryolike_scipion.engine import compute

    before, environment = torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS")
    monkeypatch.setattr(compute, "_threads", None)
    seen = []
    monkeypatch.setattr(engine, "run", lambda *_, **__: seen.append((compute.thread_count(), torch.get_num_threads())))
    try:
        cli.main(["simulate", "--threads", "3", "--out", str(tmp_path)])
        assert seen == [(3, 1)] and os.environ["OMP_NUM_THREADS"] == "3"
    finally:
        torch.set_num_threads(before)
        os.environ.pop("MKL_NUM_THREADS", None)
        if environment is not None:
            os.environ["OMP_NUM_THREADS"] = environment


def test_the_log_tells_versions_parameters_and_messages(tmp_path, capsys):
    out = tmp_path / "simulated"
    arguments = [
        "simulate",
        "--count",
        "3",
        "--box",
        "16",
        "--pixel",
        "9",
        "--out",
        str(out),
    ]
    assert cli.main(arguments) == 0
    log = (out / "log.txt").read_text(encoding="utf-8")
    assert f"cryolike-scipion {__version__} simulate" in log and '"count": 3' in log and "torch" in log
    assert "simulate: 100% (6/6 images" in log
    assert "simulate: 100% (6/6 images" in capsys.readouterr().out


# ---------------------------------------------------------------- job files


def _job(folder, **change):
    job = {
        "version": __version__,
        "verb": "simulate",
        "parameters": {"count": 2, "box": 16, "pixel": 9.0, "out": "made"},
    }
    path = folder / "job.json"
    path.write_text(json.dumps({**job, **change}), encoding="utf-8")
    return path


def test_a_job_runs_and_its_device_can_be_overruled(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["run", "--job", str(_job(tmp_path)), "--device", "cpu", "--threads", "1"]) == 0
    assert len(mrcfile.read(tmp_path / "made" / "particles.mrcs")) == 2
    given = {"particles": ["particles.star"], "structures": ["map.mrc"], "out": "scores"}
    likelihood = str(_job(tmp_path, verb="likelihood", parameters=given))
    verb, parameters = cli.read_job(likelihood, device="cuda:1", threads=5)
    assert verb == "likelihood" and parameters["device"] == "cuda:1" and parameters["threads"] == 5
    assert cli.read_job(likelihood)[1]["device"] == "cpu"


@pytest.mark.parametrize("change, words", [
    ({"version": "0.0.0"}, "same version"),
    ({"verb": "run"}, "unknown verb"),
    ({"verb": ["simulate"]}, "unknown verb"),
    ({"parameters": {"out": "x", "cuont": 3}}, "did you mean 'count'"),
    ({"parameters": {}}, "out"),
    ({"parameters": []}, "table"),
    ({"more": 1}, "nothing else"),
])  # fmt: skip
def test_a_wrong_job_is_refused(tmp_path, monkeypatch, capsys, change, words):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["run", "--job", str(_job(tmp_path, **change))]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
    assert not (tmp_path / "x").exists() and not (tmp_path / "made").exists()


@pytest.mark.parametrize("text", ["", "{", "[1]", '"x"'])
def test_a_file_that_is_no_job(tmp_path, text):
    (tmp_path / "job.json").write_text(text)
    with pytest.raises(ParameterError, match="job"):
        cli.read_job(str(tmp_path / "job.json"))


def test_a_missing_job():
    with pytest.raises(ParameterError, match=r"nowhere\.json"):
        cli.read_job("nowhere.json")


# ---------------------------------------------------------------- bad input, as a user meets it


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    """Twelve particles of 16 pixels and the map that they show."""
    folder = tmp_path_factory.mktemp("good")
    axis = np.arange(16) - 8
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    density = np.exp(-(z**2 + (y - 1) ** 2 + (x + 2) ** 2) / 6) + np.exp(-((z - 2) ** 2 + (y + 2) ** 2 + x**2) / 3)
    with mrcfile.new(folder / "map.mrc", density.astype(np.float32)) as mrc:
        mrc.voxel_size = 6.0
    engine.run("simulate", structures=[str(folder / "map.mrc")], count=12, snr=1.0, out=str(folder))
    return folder


def _case(simulated, tmp_path, edit=None, images=None):
    """Copy the particles, changing the STAR file's text or the images; return the STAR file."""
    text = (simulated / "particles.star").read_text()
    (tmp_path / "particles.star").write_text(edit(text) if edit else text)
    data = mrcfile.read(simulated / "particles.mrcs").copy()
    if images:
        images(data)
    with mrcfile.new(tmp_path / "particles.mrcs", data) as mrc:
        mrc.set_image_stack()
        mrc.voxel_size = 6.0
    return tmp_path / "particles.star"


def _without_ctf(text):
    names = ("_rlnDefocusU #3", "_rlnDefocusV #4", "_rlnDefocusAngle #5")
    for number, name in enumerate(names):
        text = text.replace(name, f"_rlnSomething{number} #{3 + number}")
    return text


def _set_image(number, value):
    def change(data):
        data[number] = value

    return change


def _without_rows(text):
    return "".join(line for line in text.splitlines(keepends=True) if "@" not in line)


PARTICLE_CASES = {
    "a missing stack": (lambda text: text.replace("particles.mrcs", "nowhere.mrcs"), None, "nowhere.mrcs", 1),
    "a NaN image": (None, _set_image(4, np.nan), "particles.mrcs", 5),
    "a constant image": (None, _set_image(7, 1.0), "particles.mrcs", 8),
    "a row outside its stack": (lambda text: text.replace("000012@", "000099@"), None, "particles.mrcs", 12),
    "no CTF columns": (_without_ctf, None, "particles.star", None),
    "an empty set": (_without_rows, None, "particles.star", None),
    "a pixel size of 0": (lambda text: text.replace("6.000000 16", "0.000000 16"), None, "particles.star", None),
}  # fmt: skip


QUICK = ("--angular-step", "30", "--levels", "0", "--device", "cpu")


def _assert_refused(run, out, *words):
    assert run.returncode == 2, run.stderr
    assert "Traceback" not in run.stderr + run.stdout
    lines = [line for line in run.stderr.splitlines() if not line.startswith("warning: ")]
    assert len(lines) == 1 and all(word in lines[0] for word in words), run.stderr
    assert lines[0].rstrip().endswith(".") and len(lines[0].split(". ")) >= 2, "no remedy"
    for result in ("particles.star", "matrix.npy", "scores.h5", "report.html"):
        assert not (Path(out) / result).exists()


@pytest.mark.parametrize("verb", ["likelihood", "particles"])
@pytest.mark.parametrize("case", PARTICLE_CASES)
def test_bad_particles_are_refused_with_file_and_row(simulated, tmp_path, verb, case):
    edit, images, name, row = PARTICLE_CASES[case]
    star, out = _case(simulated, tmp_path, edit, images), tmp_path / "out"
    structures = ["--structures", simulated / "map.mrc"] if verb == "likelihood" else []
    run = command(verb, "--particles", star, *structures, "--device", "cpu", "--out", out)
    _assert_refused(run, out, name, *([f"row {row}"] if row else []))


def test_a_truncated_stack_is_refused(simulated, tmp_path):
    star = _case(simulated, tmp_path)
    with open(tmp_path / "particles.mrcs", "r+b") as stack:
        stack.truncate(1024 + 4 * 16 * 16 * 9 + 100)
    run = command("likelihood", "--particles", star, "--structures", simulated / "map.mrc", "--out", tmp_path / "out")
    _assert_refused(run, tmp_path / "out", "particles.mrcs", "row 10")


def _write_map(path, data, pixel=6.0):
    with mrcfile.new(path, data.astype(np.float32)) as mrc:
        mrc.voxel_size = pixel
    return path


def _noise(*shape):
    return np.random.default_rng(0).normal(size=shape)


STRUCTURE_CASES = {
    "not cubic": lambda folder: _write_map(folder / "bad.mrc", _noise(16, 16, 12)),
    "pixel size 0": lambda folder: _write_map(folder / "bad.mrc", _noise(16, 16, 16), 0.0),
    "NaN": lambda folder: _write_map(folder / "bad.mrc", np.full((16, 16, 16), np.nan)),
    "no map": lambda folder: (folder / "bad.mrc").write_text("hello"),
    "no PDB": lambda folder: (folder / "bad.pdb").write_text("hello"),
    "unknown": lambda folder: (folder / "bad.txt").write_text("hello"),
    "missing": lambda folder: None,
}


@pytest.mark.parametrize("case", STRUCTURE_CASES)
def test_bad_structures_are_refused_with_their_file(simulated, tmp_path, case):
    STRUCTURE_CASES[case](tmp_path)
    path = next(tmp_path.glob("bad.*"), tmp_path / "bad.mrc")
    out = tmp_path / "out"
    run = command("likelihood", "--particles", simulated / "particles.star", "--structures", path, "--out", out)
    _assert_refused(run, out, path.name)


@pytest.mark.parametrize("value", ["nan", "constant"])
def test_bad_images_can_be_flagged_and_the_run_goes_on(simulated, tmp_path, value):
    star = _case(simulated, tmp_path, images=_set_image(4, np.nan if value == "nan" else 2.5))
    out = tmp_path / "out"
    run = command("likelihood", "--particles", star, "--structures", simulated / "map.mrc", *QUICK, "--out", out,
                  "--bad-images", "flag")  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert "1" in run.stdout + run.stderr
    from cryolike_scipion.engine.results import load_results

    results = load_results(out)
    assert [m for m, status in enumerate(results.status) if status] == [4]
    assert results.best_structure[4] == 0 and (results.best_structure[np.arange(12) != 4] == 1).all()
    assert np.load(out / "matrix.npy").shape == (1, 12)


def test_odd_file_names_go_through(simulated, tmp_path):
    folder = tmp_path / "a b' $(touch x) % ü"
    folder.mkdir()
    star = _case(simulated, folder)
    structure = folder / 'map "1" $HOME.mrc'
    structure.write_bytes((simulated / "map.mrc").read_bytes())
    out = folder / "out put"
    run = command("likelihood", "--particles", star, "--structures", structure, *QUICK, "--out", out,
                  "--labels", "<b>$x$</b> 'ü'")  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert (out / "particles.star").exists() and (out / "report.html").exists()
    assert "&lt;b&gt;$x$&lt;/b&gt;" in (out / "report.html").read_text(encoding="utf-8")
