"""Every workflow template as a facility runs it: from the command line to the report and the STAR file.

Each in another way of running: as one job of a queue for each node, as one for each step, with steps at the same time on one
machine, and while the particles come. Where it can be, something is stopped on the way and continued.
"""

import contextlib
import glob
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import cryolike_scipion
from cryolike_scipion import engine
from cryolike_scipion.convert.star import read_columns
from cryolike_scipion.engine.particles import read_particles
from cryolike_scipion.engine.results import load_results

from .helpers import program
from .particle_files import cryosparc_array, write_cryosparc
from .slurm import Slurm, wait_for
from .small_sets import BOX, simulate, write_maps

COUNT = 105  # while particles come, less than 50 would wait for more
FEW = 48  # of them where they are all there
PIXEL = 4.0
SETTINGS = [f"pixel={PIXEL}", "resolution=20", "mask=92", "threads=1"]
HOSTS = Path(cryolike_scipion.__file__).parent / "templates" / "hosts.slurm.conf"
LONGEST = 400.0  # seconds, for one command on a busy machine


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Maps of two structures and particles of them, with the truth."""
    folder = tmp_path_factory.mktemp("session")
    (folder / "maps").mkdir()
    maps = write_maps(folder / "maps")
    simulate(folder, maps, count=COUNT)
    head, rows = divided(folder / "particles.star")
    (folder / "few.star").write_text("".join(head + rows[:FEW]))
    return folder


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    program("sbatch")
    running = Slurm(tmp_path_factory.mktemp("slurm") / "s")
    yield running
    running.stop()


@pytest.fixture(autouse=True)
def nothing_goes_on():
    """After a test that failed, end what it started."""
    yield
    for command in Command.started:
        command.kill()
    Command.started.clear()


class Command:
    """The documented command for a template, started; its output is read as it comes."""

    started = []

    def __init__(self, *words, **environ):
        self.started.append(self)
        environ = dict(os.environ, SCIPION_STEPS_CHECK_SEC="1", PYTHONUNBUFFERED="1", **environ)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "cryolike_scipion.workflow", *words],
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.said = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        with self._process.stdout:
            for line in self._process.stdout:
                self.said += line.decode(errors="replace")

    def end(self):
        """Wait for the end; return the exit status."""
        try:
            self._process.wait(LONGEST)
            self._reader.join(10)
        finally:
            self.kill()
        return self._process.returncode

    def shows(self, condition, what, more=lambda: ""):
        """Wait until a condition holds while the command works."""

        def holds():
            if condition():
                return True
            assert self._process.poll() is None, f"the command ended before {what}\n{self.said}{logs(self.said)}{more()}"
            return False

        wait_for(holds, what, lambda: self.said + more(), LONGEST)

    def kill(self):
        """End it and everything that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def succeeds(self):
        status = self.end()
        assert status == 0, self.said + logs(self.said)


def logs(said):
    """Return what the error logs that an output names say."""
    return "".join(f"\n==== {path}\n{Path(path).read_text()[-3000:]}" for path in re.findall(r"see (\S+run\.stderr)", said))


def project_folder(name):
    return Path(os.environ["SCIPION_USER_DATA"]) / "projects" / name


def node(project, kind):
    """Return the folder of a project's node."""
    (folder,) = project_folder(project).glob(f"Runs/*_ProtCryolike{kind}")
    return folder


def check_result(project, data, count=FEW, structures=2):
    """What a run must have in the end, and that it is right: report, STAR file, matrices, Scipion's sets."""
    run = node(project, "Likelihood")
    result = run / "extra" / "result"
    assert (result / "report.html").read_text(encoding="utf-8").rstrip().endswith("</html>")
    with sqlite3.connect(str(run / "particles.sqlite")) as database:
        ids = [row[0] for row in database.execute("select id from Objects")]
        column = "select column_name from Classes where label_property = '_cryolike_logRatioZ'"
        (column,) = database.execute(column).fetchone()
        scores = dict(database.execute(f"select id, {column} from Objects"))
        state = database.execute("select value from Properties where key = '_streamState'").fetchone()
    assert sorted(ids) == list(range(1, count + 1)), "no particle is lost or twice"
    assert state == ("2",), "the output is closed"
    assert (run / "classes3D.sqlite").exists()
    with sqlite3.connect(str(project_folder(project) / "project.sqlite")) as database:
        texts = [row[0] or "" for row in database.execute("select value from Objects where name like '%.methodsVar'")]
    assert any(f"{count} particles were compared with {structures} structures" in text for text in texts), "for a paper"
    columns = read_columns(
        str(result / "particles.star"),
        "particles",
        ["cryolikeItemId", "rlnClassNumber", "rlnImageName", "cryolikeStatus", "cryolikeLogRatioZ"],
    )
    assert sorted(map(int, columns["cryolikeItemId"])) == sorted(ids)
    assert set(columns["cryolikeStatus"]) == {"ok"}
    assert [scores[int(item)] for item in columns["cryolikeItemId"]] == [float(z) for z in columns["cryolikeLogRatioZ"]]
    assert len(set(columns["rlnImageName"])) == count
    assert load_results(result).integrated.shape == (structures, count)
    assert np.load(result / "matrix.npy").shape == (structures, count)
    # RELION reads the exported file from anywhere: its image names are complete.
    assert len(read_particles(result / "particles.star")) == count
    assert all(Path(name.split("@")[1]).is_absolute() for name in columns["rlnImageName"])
    first = run / "extra" / "first.star"
    select = ["--select", "rlnClassNumber", "--minval", "0.5", "--maxval", "1.5"]
    handler = [program("relion_star_handler"), "--i", str(result / "particles.star"), *select, "--o", str(first)]
    subprocess.run(handler, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert sum("@" in line for line in first.read_text().splitlines()) == columns["rlnClassNumber"].count("1") > 0
    truth = read_columns(str(data / "truth.star"), "particles", ["rlnClassNumber", "rlnImageName"])
    expected = {name.split("@")[0]: label for name, label in zip(truth["rlnImageName"], truth["rlnClassNumber"])}
    labels = load_results(result).labels  # Scipion's imports do not sort them
    right = [
        sorted(labels)[int(expected[name.split("@")[0]]) - 1] == labels[int(number) - 1]
        for name, number in zip(columns["rlnImageName"], columns["rlnClassNumber"])
    ]
    assert np.mean(right) > 0.9


def engine_starts(run):
    """Return how often the engine has begun in each batch of a run."""
    return {
        log.parent.parent.name: len(re.findall(r" likelihood, Python ", log.read_text(encoding="utf-8")))
        for log in run.glob("extra/batches/*/result/log.txt")
    }


def test_relion_particles_each_node_a_job_one_of_which_dies(data, slurm):
    command = ["cryolike-relion-maps", "facility_relion", f"particles={data}/few.star", f"maps={data}/maps", *SETTINGS]
    command += ["--queue", "main", "--queue-param", "JOB_MEMORY=1"]
    environ = {"SCIPION_HOSTS": str(HOSTS), "SLURM_CONF": str(slurm.config)}
    first = Command(*command, **environ)
    runs = project_folder("facility_relion")
    first.shows(lambda: glob.glob(f"{runs}/Runs/*Likelihood/extra/result/log.txt"), "likelihood", slurm.logs)
    (job,) = slurm.jobs("running")
    slurm.says("scancel", str(job))
    assert first.end() == 1
    assert f"likelihood: JOB ID {job} not found running on the queue engine" in first.said
    Command(*command, **environ).succeeds()
    check_result("facility_relion", data)
    script = next(node("facility_relion", "Likelihood").glob("logs/*.job")).read_text()
    assert "#SBATCH --cpus-per-task=1\n" in script and "#SBATCH --partition=main\n" in script


def test_cryosparc_particles_each_step_a_job_one_of_which_is_cancelled(data, slurm):
    cryosparc_set(data)
    command = ["cryolike-cryosparc-maps", "facility_cryosparc", f"particles={data}/J7_particles.cs", f"maps={data}/maps"]
    command += [*SETTINGS, f"batch={FEW // 2}", "--queue", "main", "--queue-steps", "--queue-param", "JOB_MEMORY=1"]
    environ = {"SCIPION_HOSTS": str(HOSTS), "SLURM_CONF": str(slurm.config)}
    first = Command(*command, **environ)
    runs = project_folder("facility_cryosparc")
    first.shows(lambda: glob.glob(f"{runs}/Runs/*Likelihood/extra/batches/000001/done.json"), "a batch", slurm.logs)
    first.shows(lambda: slurm.jobs("running"), "the next batch", slurm.logs)
    slurm.says("scancel", str(slurm.jobs("running")[0]))
    assert first.end() == 1
    assert "The queue's job ended without a result" in first.said, first.said
    assert "CANCELLED" in first.said
    Command(*command, **environ).succeeds()
    check_result("facility_cryosparc", data)
    starts = engine_starts(node("facility_cryosparc", "Likelihood"))
    assert sorted(starts) == ["000001", "000002"]
    assert starts["000001"] == 1 and sum(starts.values()) <= 3, "what was done is not repeated"
    row = engine_inspect(node("facility_cryosparc", "Likelihood"), 40)
    assert row["image"].shape == (BOX, BOX)


def test_an_ensemble_of_atomic_structures_steps_at_the_same_time(tmp_path):
    folder = tmp_path / "ensemble"
    engine.run("simulate", count=FEW, box=24, pixel=8.0, snr=1.0, out=str(folder))
    Command(
        "cryolike-ensemble",
        "facility_ensemble",
        f"particles={folder}/particles.star",
        f"structures={folder}",
        "resolution=20",
        "mask=185",
        "threads=1",
        "steps=3",
        f"batch={FEW // 3}",
    ).succeeds()
    run = node("facility_ensemble", "Likelihood")
    check_result("facility_ensemble", folder)
    assert engine_starts(run) == {"000001": 1, "000002": 1, "000003": 1}
    jobs = [json.loads(path.read_text())["parameters"] for path in run.glob("extra/batches/*/job.json")]
    assert {job["shared_by"] for job in jobs} == {2}, "the memory is shared"
    priors = {(run / f"extra/batches/{number}/result/scale.json").read_text() for number in ("000001", "000002", "000003")}
    assert len(priors) == 1, "one contrast prior for all"


def test_particles_that_come_with_a_stop_on_the_way(data, tmp_path):
    head, rows = divided(data / "particles.star")
    os.symlink(str(data / "particles.mrcs"), str(tmp_path / "particles.mrcs"))

    def arrive(name, some):
        (tmp_path / "part.tmp").write_text("".join(head + some))
        os.replace(str(tmp_path / "part.tmp"), str(tmp_path / f"{name}.star"))

    command = ["cryolike-streaming", "facility_streaming", f"particles={tmp_path}/*.star", f"stop={tmp_path}/stop"]
    command += ["complete=0.5", "pilot=15", f"maps={data}/maps", *SETTINGS]
    arrive("part1", rows[:52])
    started = Command(*command)
    runs = project_folder("facility_streaming")
    try:
        started.shows(lambda: scored(runs) == 52, "the first particles")
        started.shows(lambda: glob.glob(f"{runs}/Runs/*Likelihood/extra/result/report.html"), "the report")
        run = node("facility_streaming", "Likelihood")
        assert load_results(run / "extra" / "result").integrated.shape == (2, 52), "the report is current"
        # The node is stopped as the window's button does it, while the import and the conversion go on.
        stop_node("facility_streaming", "Likelihood")
        arrive("part2", rows[52:103])
        started.shows(lambda: converted(runs) == 103, "the conversion")
        assert scored(runs) == 52
    finally:
        (tmp_path / "stop").touch()
        arrive("part3", rows[103:])
        started.end()
    assert "likelihood: aborted" in started.said
    done = (run / "extra/batches/000001/result/scores.h5").stat().st_mtime_ns
    Command(*command).succeeds()
    check_result("facility_streaming", data, COUNT)
    assert (run / "extra/batches/000001/result/scores.h5").stat().st_mtime_ns == done, "nothing is repeated"
    assert set(engine_starts(run).values()) == {1}
    assert json.loads((run / "extra/progress.json").read_text())["done"] == COUNT


def test_a_wrong_word_is_told_in_one_line(data):
    command = Command("cryolike-relion-maps", "facility_wrong", "partciles=x.star")
    assert command.end() == 2
    assert "workflow: cryolike-relion-maps has no parameter 'partciles'" in command.said
    missing = Command("cryolike-relion-maps", "facility_wrong", "particles=/no/such.star")
    assert missing.end() == 2
    assert "particles=/no/such.star: Path does not exists" in missing.said
    assert not project_folder("facility_wrong").exists()


# ---------------------------------------------------------------- helpers


def divided(star):
    """Return the lines of a STAR file before its images, and those of the images."""
    lines = star.read_text().splitlines(keepends=True)
    first = next(i for i, line in enumerate(lines) if "@" in line)
    return lines[:first], [line for line in lines[first:] if "@" in line]


def cryosparc_set(folder):
    """Write the particles as cryoSPARC's job would, dark on bright, beside the others' images."""
    star = read_particles(folder / "few.star")
    write_cryosparc(
        folder / "J7_particles.cs",
        cryosparc_array(
            FEW,
            blob__path=np.full(FEW, str(folder / "particles.mrcs").encode()),
            blob__idx=star.frame.astype(np.uint32),
            blob__shape=np.full((FEW, 2), BOX, np.uint32),
            blob__psize_A=np.full(FEW, PIXEL, np.float32),
            blob__sign=np.ones(FEW, np.float32),
            ctf__df1_A=star.defocus_u.astype(np.float32),
            ctf__df2_A=star.defocus_v.astype(np.float32),
            ctf__df_angle_rad=np.deg2rad(star.defocus_angle_deg).astype(np.float32),
            ctf__phase_shift_rad=np.zeros(FEW, np.float32),
        ),
    )


def engine_inspect(run, row):
    """Return what `inspect` says about a particle of a merged result, as the viewer asks for it."""
    out = run / "extra" / "one.npz"
    before = os.getcwd()
    os.chdir(str(run.parents[1]))
    try:
        engine.run("inspect", run=str(run.relative_to(run.parents[1]) / "extra" / "result"), row=row, out=str(out))
    finally:
        os.chdir(before)
    with np.load(out) as arrays:
        return dict(arrays)


def count_items(path):
    try:
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as database:
            return database.execute("select count(*) from Objects").fetchone()[0]
    except sqlite3.Error:
        return 0


def scored(project):
    return sum(count_items(path) for path in glob.glob(f"{project}/Runs/*Likelihood/particles.sqlite"))


def converted(project):
    return sum(count_items(path) for path in glob.glob(f"{project}/Runs/*ConvertParticles/particles.sqlite"))


def stop_node(name, kind):
    """Stop a node of a project, from another process than the one that started it."""
    code = (
        "import pyworkflow; from pyworkflow.project import Manager\n"
        "pyworkflow.Config.getDomain().getProtocols()\n"
        f"project = Manager().loadProject({name!r})\n"
        f"[node] = [each for each in project.getRuns() if type(each).__name__ == 'ProtCryolike{kind}']\n"
        "project.stopProtocol(node)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
    time.sleep(1)
