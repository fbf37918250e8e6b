"""The report page: self-contained, complete, safe with any label, and with the numbers of the run."""

import re
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest

from cryolike_scipion import engine
from cryolike_scipion.engine.errors import InputError
from cryolike_scipion.engine.report import render
from cryolike_scipion.engine.report_run import title_of
from cryolike_scipion.engine.results import Results, StructureEntry
from cryolike_scipion.plots import scores, structures
from cryolike_scipion.plots.style import plain

from .helpers import program

NASTY = ["state $()% <b>one</b>", "_Zustand\n“zwei” & $x^"]


def made_up(labels, count=120, bad=0):
    """Results of `count` particles, the last `bad` of which could not be scored."""
    rng = np.random.default_rng(2)
    results = Results.empty([StructureEntry(label, f"{k}.mrc") for k, label in enumerate(labels)], count)
    shape = (len(labels), count)
    results.integrated = rng.normal(30, 6, shape)
    results.max = results.integrated + 8
    results.cc = rng.uniform(0.1, 0.4, shape)
    results.rot, results.psi = rng.uniform(-180, 180, (2, *shape))
    results.tilt = np.rad2deg(np.arccos(rng.uniform(-1, 1, shape)))
    results.origin_x, results.origin_y = rng.normal(0, 5, (2, *shape))
    results.scale = rng.normal(1, 0.1, shape)
    results.pose_posterior, results.pose_entropy = rng.uniform(0, 1, shape), rng.uniform(3, 9, shape)
    results.status[count - bad :] = 2
    results.update_posteriors()
    results.parameters = {"search": "exhaustive", "max_shift": None, "structures": ["a b.mrc", "<c>.mrc"]}
    results.versions = {"cryolike-scipion": "x.y"}
    return results


class Page(HTMLParser):
    """Tags, attributes and text of a page; complains about what is not closed."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.sources, self.words = [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.sources += [value for name, value in attributes if name in ("src", "href")]
        if tag not in ("meta", "link", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def test_the_page_is_whole_and_needs_no_network():
    page = Page(render(made_up(["one", "two"]), "demo"))
    assert page.tags.count("img") >= 6 and "script" not in page.tags
    assert all(source.startswith("data:") for source in page.sources)


def test_labels_are_shown_as_they_are():
    text = render(made_up(NASTY), "title <i>&")
    page = Page(text)
    assert "b" in page.tags and "i" not in page.tags  # <b> is ours, in the facts
    assert NASTY[0] in page.words and "title <i>&" in page.words
    assert "<b>one</b>" not in text


def test_the_numbers_are_those_of_the_run():
    results = made_up(["one", "two"], bad=7)
    words = " ".join(Page(render(results, "demo")).words)
    counts = np.bincount(results.best_structure, minlength=3)
    assert counts[0] == 7 and "7 could not be scored" in words
    assert f"one {counts[1]}" in words and f"two {counts[2]}" in words
    share = results.structure_posterior[0, :113].mean()
    assert f"{100 * share:.1f} ±" in words
    assert "max_shift automatic" in words and "a b.mrc, <c>.mrc" in words and "cryolike-scipion x.y" in words


@pytest.mark.parametrize(
    "labels, count, bad",
    [
        (["only"], 30, 0),
        (["one", "two"], 3, 3),
        (["a", "b", "c"], 40, 1),
        ([f"model {k}" for k in range(11)], 60, 0),
    ],
)
def test_few_structures_many_structures_and_nothing_scored(labels, count, bad):
    page = Page(render(made_up(labels, count, bad), "demo"))
    assert ("img" in page.tags) == (bad < count)


def test_shares_are_expectations_with_their_deviation():
    posteriors = np.array([[0.9, 0.2, 1.0, 0.5], [0.1, 0.8, 0.0, 0.5]])
    share, deviation = structures.population_shares(posteriors)
    assert share == pytest.approx([0.65, 0.35])
    rng = np.random.default_rng(0)
    drawn = (rng.uniform(size=(200000, 4)) < posteriors[0]).mean(axis=1)
    assert deviation == pytest.approx([drawn.std()] * 2, rel=0.02)


def test_histograms_hold_every_particle():
    results = made_up(["one", "two"])
    figure = scores.score_histogram("cc", results.of_best("cc"), results.best_structure - 1, ["one", "two"])
    assert sum(patch.get_height() for patch in figure.axes[0].patches) == 120
    figure = structures.log_odds(results.integrated, ["one", "two"])
    assert sum(patch.get_height() for patch in figure.axes[0].patches) == 120


@pytest.mark.parametrize("label", [*NASTY, "x" * 300, "", "$\\frac{"])
def test_labels_in_plots_are_one_plain_line(label):
    text = plain(label)
    assert "\n" not in text and len(text) <= 45 and not text.startswith("_")
    figure = structures.populations(np.array([[0.5], [0.5]]), [label, "other"])
    figure.canvas.draw()  # a text taken for mathematics would fail here


def test_the_verb_writes_the_page_and_names_a_missing_result(tmp_path):
    results = made_up(["one", "two"])
    (tmp_path / "my run").mkdir()
    results.save(tmp_path / "my run")
    engine.run("report", run=str(tmp_path / "my run"))
    assert "<h1>my run</h1>" in (tmp_path / "my run" / "report.html").read_text(encoding="utf-8")
    engine.run("report", run=str(tmp_path / "my run"), out=str(tmp_path / "other.html"), title="Title")
    assert "<h1>Title</h1>" in (tmp_path / "other.html").read_text(encoding="utf-8")
    with pytest.raises(InputError, match="no result"):
        engine.run("report", run=str(tmp_path))


def test_the_page_of_a_node_bears_its_name(tmp_path):
    node = tmp_path / "projects" / "Runs" / "000287_ProtCryolikeLikelihood" / "extra"
    assert title_of(node / "result") == title_of(node / "batches" / "000001" / "result") == "000287_ProtCryolikeLikelihood"
    assert title_of(tmp_path / "Runs" / "mine") == "mine" and title_of(tmp_path / "result") == "result"


def made_up_gallery(labels):
    """Pictures as a run has them, of noise."""
    rng = np.random.default_rng(4)
    count, size = len(labels), 16
    image = rng.normal(size=(size, size))
    gallery = {
        "labels": np.array(labels),
        "shown": np.arange(1, count + 1),
        "average": rng.normal(size=(count, size, size)),
        "average_template": rng.normal(size=(count, size, size)),
        "average_count": np.full(count, 5),
        "member_row": np.tile(np.arange(1, 7), (count, 1)),
        "member_image": rng.normal(size=(count, 6, size, size)),
        "member_template": rng.normal(size=(count, 6, size, size)),
        "example_kind": np.array(["clear"]),
        "example_row": np.array([3]),
    }
    example = {
        "image": image,
        "templates": np.stack([image] * count),
        "residual": np.stack([image] * count),
        **{name: np.full(count, 0.5) for name in ("cc", "log_likelihood", "structure_posterior")},
        "best_structure": np.array(1),
        "view_rot_001": rng.uniform(-180, 180, 50),
        "view_tilt_001": rng.uniform(0, 180, 50),
        "view_score_001": rng.normal(size=50),
        "shift_001": rng.normal(size=(9, 2)),
        "inplane_001": np.arange(0, 360, 30.0),
        "shift_inplane_score_001": rng.normal(size=(9, 12)),
    }
    return gallery | {f"example_1_{name}": value for name, value in example.items()}


def test_pictures_of_particles_and_densities_are_on_the_page():
    plain_page = render(made_up(NASTY), "demo")
    densities = [(NASTY[0], np.random.default_rng(1).normal(size=(8, 8, 8)), 2.0)]
    page = Page(render(made_up(NASTY), "demo", made_up_gallery(NASTY), densities))
    assert page.tags.count("img") == Page(plain_page).tags.count("img") + 4 + 1


@pytest.mark.parametrize("width", [500, 1280])
def test_a_browser_shows_the_page(tmp_path, width):
    browser = program("chromium", "google-chrome", "chromium-browser")
    path, shot = tmp_path / "report.html", tmp_path / "shot.png"
    text = render(made_up(NASTY), "demo", made_up_gallery(NASTY))
    # The page has no script; this one tells the test how wide it came out.
    measure = "<script>document.title = `${document.documentElement.scrollWidth} in ${innerWidth}`</script></body>"
    path.write_text(text.replace("</body>", measure), encoding="utf-8")
    run = subprocess.run(
        [
            browser,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            f"--window-size={width},1200",
            "--enable-logging=stderr",
            f"--user-data-dir={tmp_path / 'profile'}",
            f"--screenshot={shot}",
            "--dump-dom",
            path.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert shot.stat().st_size > 10_000
    assert not re.findall(r"CONSOLE.*", run.stderr)
    wide, inner = map(int, re.search(r"<title>(\d+) in (\d+)</title>", run.stdout).groups())
    assert wide <= inner <= width, "the page is wider than the window"
