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
        "import hierarchical, end_to_end, memory, startup\nassert 'torch' in sys.modules"
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


# ---------------------------------------------------------------- one search beside another


def _found(searching, log, best=None, error=0.0, rows=1.0, rotation=None):
    log = np.array(log, dtype=float)
    return searching.Found(
        log,
        np.full(log.shape, error),
        np.array(log if best is None else best, dtype=float),
        np.broadcast_to(np.eye(3) if rotation is None else rotation, (*log.shape, 3, 3)),
        np.full(log.shape, rows),
        seconds=0.5,
    )


def test_differences_from_the_exhaustive_search_are_told(bench):
    hierarchical, searching = bench("hierarchical"), bench("searching")
    exhaustive = _found(searching, [[10.0, 20.0, 30.0], [5.0, 5.0, 5.0]])
    found = _found(searching, [[10.0, 20.01, 30.1], [4.0, 4.0, 4.0]], [[9.995, 19.0, 31.0], [5, 5, 5]], error=0.3, rows=2.0)
    first = np.array([[True] * 3, [False] * 3])
    close = hierarchical.closeness(found, exhaustive, first, np.array([10, 20]))
    assert close.pairs == 3 and close.within == pytest.approx(2 / 3) and close.best_pose == pytest.approx(2 / 3)
    assert close.median == pytest.approx(0.01) and close.worst == pytest.approx(0.1)
    assert close.reported == pytest.approx(0.3) and close.real == pytest.approx(np.hypot(0.01, 0.1) / np.sqrt(3))
    assert close.rows == pytest.approx(0.2)
    assert hierarchical.closeness(found, exhaustive, ~first, np.array([10, 20])).rows == pytest.approx(0.1)
    with pytest.raises(ValueError, match="no pair"):
        hierarchical.closeness(found, exhaustive, first & ~first, np.array([10, 20]))


def test_structures_as_good_as_the_best_count_as_the_same(bench):
    hierarchical, searching = bench("hierarchical"), bench("searching")
    exhaustive = _found(searching, [[1.0, 1.0, 1.0], [0.0, 0.995, 0.5]])
    other = _found(searching, [[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    assert hierarchical.same_structure(exhaustive, exhaustive) == 1
    assert hierarchical.same_structure(other, exhaustive) == pytest.approx(1 / 3)


def test_the_answer_is_held_against_the_truth(bench):
    hierarchical, searching = bench("hierarchical"), bench("searching")
    from cryolike_scipion.engine.rotations import matrix_from_euler

    truth = hierarchical.Truth(np.array([0, 1, 0, 2]), np.repeat(matrix_from_euler(0.0, 0.0, 90.0)[None], 4, axis=0))
    found = _found(searching, [[1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]])
    fourfold = hierarchical.quality(found, truth, ["C4", "C4"])
    assert fourfold.structures == pytest.approx(2 / 3)  # the fourth particle's structure was not offered
    assert fourfold.pose_error < 1e-6 and fourfold.near == 1
    plain = hierarchical.quality(found, truth, ["C1", "C4"])
    assert plain.pose_error == pytest.approx(90) and plain.near == pytest.approx(1 / 3)


def test_both_searches_ask_the_same_grid(bench, tmp_path):
    hierarchical, searching, particles = bench("hierarchical"), bench("searching"), bench("particles")
    data = particles.simulate(tmp_path, 8, 32, snr=0.2)
    case = searching.Case("small", data.particles, data.truth, data.structures, max_shift=2 * data.pixel)
    searches = searching.Searches(case, 5, 2, angular_step=15.0, shift_step=data.pixel, levels=0)
    exhaustive, found = searches.exhaustive(), searches.hierarchical()
    assert exhaustive.log.shape == (2, 5) and exhaustive.rotation.shape == (2, 5, 3, 3)
    assert np.array_equal(exhaustive.rows[:, 0], searches.grid_rows) and (found.rows > 0).all()
    assert hierarchical.same_structure(found, exhaustive) == 1
    assert np.abs(found.log - exhaustive.log).max() < 0.1
    assert searches.reference_seconds() > 0


# ---------------------------------------------------------------- calibration


def test_small_sets_are_not_judged_and_large_ones_by_every_bound(bench):
    calibration = bench("calibration")
    from cryolike_scipion.engine.calibration import reliability

    sure = np.full(10_000, 0.9)
    fair, bold = reliability(sure, np.arange(10_000) % 10 > 0), reliability(sure, np.arange(10_000) % 10 > 1)

    def case(count, structure=fair, region=fair):
        return calibration.Case(0.1, 2, count, structure, bold, region)

    assert case(9_999, bold, bold).verdict == case(300).verdict == "not judged"
    assert (case(10_000).verdict, case(10_000, bold).verdict, case(10_000, region=bold).verdict) == ("holds", "fails", "fails")
    lines = calibration.table([case(300), case(10_000, bold)]).splitlines()
    assert lines[2].endswith("| not judged |") and lines[3].endswith("| fails |")
    assert len({line.count("|") for line in lines}) == 1
