"""The measuring half of the benchmarks: a wrong stopwatch would make every published figure wrong."""

import importlib
import sys
import threading
import time

import numpy as np
import pytest

from .helpers import REPOSITORY

FOLDER = REPOSITORY / "benchmarks"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="the benchmarks are not installed with the package")
MIB = 2.0**20


@pytest.fixture
def bench(monkeypatch):
    """Import a module of the benchmarks by its name."""
    monkeypatch.syspath_prepend(str(FOLDER))
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if str(FOLDER) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


# ---------------------------------------------------------------- processes


def test_a_process_is_charged_with_its_own_memory_only(bench):
    common = bench("common")
    mine = np.ones(int(300 * MIB / 8))  # what this process holds is not the child's
    small = common.measure(common.python("import time; time.sleep(0.1)"))
    large = common.measure(common.python("import time; data = b'x' * (200 << 20); time.sleep(0.1)"))
    assert mine.sum() > 0
    assert small.peak < 60 * MIB
    assert 200 * MIB < large.peak < 260 * MIB


def test_wall_and_processor_time_are_told_apart(bench):
    common = bench("common")
    asleep = common.measure(common.python("import time; time.sleep(0.6)"))
    awake = common.measure(common.python("import time\nwhile time.process_time() < 0.6: pass"))
    assert asleep.wall >= 0.6 and asleep.cpu < 0.3 and asleep.cores < 0.5
    assert awake.wall >= 0.6 and awake.cpu >= 0.6


def test_a_failed_process_tells_what_it_wrote(bench):
    common = bench("common")
    with pytest.raises(RuntimeError, match=r"(?s)exit status 3.*no such particle"):
        common.measure(common.python("import sys; print('no such particle'); sys.exit(3)"))


def test_a_process_that_takes_too_long_is_stopped(bench):
    common = bench("common")
    start = time.perf_counter()
    with pytest.raises(TimeoutError, match=r"0\.3 s"):
        common.measure(common.python("import time; time.sleep(60)"), timeout=0.3)
    assert time.perf_counter() - start < 30


def test_options_become_a_command_line(bench):
    words = bench("common").cryolike("likelihood", max_shift=6.5, structures=["a b", "c"], restart=True, search=None)
    assert words[1:4] == ["-m", "cryolike_scipion", "likelihood"]
    assert words[4:] == ["--max-shift", "6.5", "--structures", "a b", "c", "--restart"]


# ---------------------------------------------------------------- stages


def test_torch_is_loaded_after_the_engine_has_said_how_threads_wait(bench):
    common = bench("common")
    script = (
        f"import os, sys\nsys.path.insert(0, {str(FOLDER)!r})\nos.environ.pop('OMP_WAIT_POLICY', None)\n"
        "import common\nassert 'torch' not in sys.modules\n"
        "class Watch:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        assert name != 'torch' or 'OMP_WAIT_POLICY' in os.environ, 'torch came first'\n"
        "sys.meta_path.insert(0, Watch())\n"
        "import end_to_end, memory, startup\nassert 'torch' in sys.modules"
    )
    common.measure(common.python(script))


def _busy(seconds):
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def test_a_stage_does_not_count_the_stages_within_it(bench):
    recorder = bench("stages").Recorder()
    with recorder.stage("outer"):
        _busy(0.05)
        for _ in range(2):
            with recorder.stage("inner"):
                _busy(0.1)
    outer, inner = recorder.stages["outer"], recorder.stages["inner"]
    assert (outer.calls, inner.calls) == (1, 2)
    assert 0.05 <= outer.cpu < 0.1 and 0.2 <= inner.cpu < 0.3
    assert inner.wall >= 0.2 and inner.workers == 0


def test_work_of_threads_is_counted_once(bench):
    recorder = bench("stages").Recorder()

    def worker():
        _busy(0.1)  # in no stage of its own: the main thread's stage has it
        with recorder.stage("templates"):
            _busy(0.2)

    with recorder.stage("search"):
        threads = [threading.Thread(target=worker) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    search, templates = recorder.stages["search"], recorder.stages["templates"]
    assert templates.calls == 2 and templates.wall == 0 and templates.workers >= 0.4
    assert 0.4 <= templates.cpu < 0.5
    assert 0.2 <= search.cpu < 0.35


def test_the_stages_are_functions_of_the_engine(bench):
    stages = bench("stages")
    from cryolike_scipion.engine import likelihood_chunk, template_bank

    before = vars(likelihood_chunk).copy(), template_bank.TemplateBank.templates
    undo = stages.wrap_stages(stages.Recorder())
    try:
        assert likelihood_chunk.convert is not before[0]["convert"]
        assert template_bank.TemplateBank.templates is not before[1]
    finally:
        undo()
    assert vars(likelihood_chunk) == before[0] and template_bank.TemplateBank.templates is before[1]


# ---------------------------------------------------------------- lines and answers


def test_the_line_through_times_is_told_with_its_error(bench):
    fit_line = bench("end_to_end").fit_line
    exact = fit_line([1000, 3000, 10000], [2 + 0.1 * n for n in (1000, 3000, 10000)])
    assert exact.start == pytest.approx(2) and exact.slope == pytest.approx(0.1) and exact.error < 1e-9
    assert fit_line([1000, 3000, 10000], [100.0, 300.0, 3000.0]).error > 0.3


def test_a_wrong_answer_shows(bench, tmp_path):
    particles = bench("particles")
    from cryolike_scipion.engine.particles import read_particles
    from cryolike_scipion.engine.results import Results, StructureEntry

    data = particles.simulate(tmp_path, 6, 16)
    assert particles.simulate(tmp_path, 6, 16) == data
    truth = read_particles([data.truth])
    results = Results.empty([StructureEntry("a"), StructureEntry("b")], 6)
    results.identify(truth)
    results.best_structure[:] = truth.class_number
    for name in ("rot", "tilt", "psi"):
        getattr(results, name)[:] = getattr(truth, name)
    results.save(tmp_path)
    good = particles.agreement(tmp_path, data)
    assert good.accuracy == 1 and good.pose_error < 1e-3 and good.near == 1
    results.best_structure[0] = 3 - results.best_structure[0]
    results.psi += 30.0
    results.save(tmp_path)
    bad = particles.agreement(tmp_path, data)
    assert bad.accuracy == pytest.approx(5 / 6) and bad.pose_error == pytest.approx(30, abs=1e-3) and bad.near == 0
