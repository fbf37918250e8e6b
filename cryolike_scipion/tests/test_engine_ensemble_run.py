"""The verb ``ensemble``: matrices of every orientation, its files, its refusals; and the comparison over a whole set."""

import csv
import json
import tracemalloc

import h5py
import numpy as np
import pytest

from cryolike_scipion import cli, engine
from cryolike_scipion.engine import mixture_posterior, model_comparison
from cryolike_scipion.engine.errors import InputError
from cryolike_scipion.engine.image_stacks import OK
from cryolike_scipion.engine.likelihood_matrix import read_matrix
from cryolike_scipion.engine.model_comparison import COMPARED, compare_over_set
from cryolike_scipion.engine.results import Results, StructureEntry

from .mixtures import centres, mixture_of, shares


@pytest.fixture(scope="module")
def values():
    return mixture_of(centres(3, 1.0, 1), shares(3, 0.6), 500, np.random.default_rng(1))[0]


def _run(source, out, **options):
    engine.run("ensemble", scores=str(source), out=str(out), **{"bootstrap": 20, **options})
    return json.loads((out / "ensemble.json").read_text(encoding="utf-8"))


def test_orientations_and_formats_give_the_same_populations(values, tmp_path):
    np.save(tmp_path / "ours.npy", values)
    np.save(tmp_path / "theirs.npy", values.T)
    np.savetxt(tmp_path / "theirs.csv", values.T, delimiter=",")
    np.savetxt(tmp_path / "ours.txt", values, header="a comment")
    found = [
        _run(tmp_path / name, tmp_path / name.replace(".", "_"), orientation=orientation, labels=["a", "b", "c"])
        for name, orientation in (
            ("ours.npy", "structures"),
            ("theirs.npy", "particles"),
            ("theirs.csv", "particles"),
            ("ours.txt", "structures"),
        )
    ]
    expected = [s["mean"] for s in found[0]["structures"]]
    assert expected == pytest.approx([0.6, 0.2, 0.2], abs=0.06)
    for other in found[1:]:
        assert [s["mean"] for s in other["structures"]] == pytest.approx(expected, abs=1e-3)
        assert [s["label"] for s in other["structures"]] == ["a", "b", "c"]


def test_files_hold_the_same_numbers(values, tmp_path):
    np.save(tmp_path / "m.npy", values)
    numbers = _run(tmp_path / "m.npy", tmp_path / "out", labels=["a", "<b>", "c, d"])
    with open(tmp_path / "out" / "populations.csv", newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["label"] for row in rows] == ["a", "<b>", "c, d"]
    for row, own in zip(rows, numbers["structures"]):
        assert float(row["low"]) == own["low"] < own["mean"] < own["high"]
        assert own["bootstrap_low"] < own["most_likely"] < own["bootstrap_high"]
    with h5py.File(tmp_path / "out" / "ensemble.h5") as file:
        assert file["draws"][()].mean(axis=0) == pytest.approx([s["mean"] for s in numbers["structures"]])
        assert file["draws"].attrs["meaning"]
    page = (tmp_path / "out" / "ensemble.html").read_text(encoding="utf-8")
    assert "&lt;b&gt;" in page and "<b>a" not in page and page.count("data:image/png") == 2
    assert numbers["prior"] == {"kind": "Dirichlet", "concentration": 0.5}


def test_a_run_leaves_out_what_could_not_be_scored_and_may_have_none_of_these(values, tmp_path):
    results = Results.empty([StructureEntry(label) for label in "abc"], 520)
    results.integrated[:, :500] = values - values.max(axis=0) + 8.0
    results.integrated[:, 480:500] = -12.0  # junk
    results.status[500:] = OK + 1
    results.parameters = {"scale": "learned"}
    results.save(tmp_path)
    numbers = _run(tmp_path, tmp_path / "out", with_none=True)
    assert (numbers["particles"], numbers["left_out"]) == (500, 20)
    assert numbers["structures"][-1]["label"] == "none of these"
    assert numbers["structures"][-1]["low"] < 0.04 < numbers["structures"][-1]["high"]
    results.parameters = {"scale": "free"}
    results.save(tmp_path)
    with pytest.raises(InputError, match="--scale learned"):
        _run(tmp_path, tmp_path / "out", with_none=True)


def test_the_command_warns_of_structures_alike(values, tmp_path, capsys):
    np.save(tmp_path / "m.npy", np.vstack([values, values[2]]))
    assert cli.main(["ensemble", str(tmp_path / "m.npy"), "--bootstrap=0", "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr()
    assert "cannot tell apart 3, 4: only their sum is known" in said.err
    assert "95 % credible" in said.out


@pytest.mark.parametrize(
    "name, content, words",
    [
        ("m.npy", np.zeros((500, 3)), "--orientation"),
        ("m.npy", np.full((2, 5), np.nan), "m.npy, row 1: column 1 is nan"),
        ("m.npy", np.zeros(7), "1 dimensions"),
        ("m.npy", np.array([["a", "b"]], dtype=object), "cannot be read"),
        ("m.csv", "1,2,3\n1,x,3\n", "row 2: '1 x 3'"),
        ("m.csv", "1,2,3\n1,2\n", "row 2: 2 numbers"),
        ("m.csv", "", "m.csv: the table holds no numbers"),
        ("m.txt", "# nothing\n\n", "m.txt: the table holds no numbers"),
        ("m.xyz", "", "neither a run's folder"),
        ("m.npy", None, "no such file"),
    ],
)
def test_refusals_name_the_file_and_the_remedy(name, content, words, tmp_path):
    path = tmp_path / name
    if isinstance(content, str):
        path.write_text(content, encoding="utf-8")
    elif content is not None:
        np.save(path, content, allow_pickle=True)
    with pytest.raises(InputError, match=words):
        read_matrix(path, "structures", None)


def test_an_input_is_not_overwritten(values, tmp_path):
    np.savetxt(tmp_path / "populations.csv", values, delimiter=",")
    with pytest.raises(InputError, match="overwrite"):
        _run(tmp_path / "populations.csv", tmp_path)


def test_jackknife_is_the_one_by_leaving_out(values):
    """Of the mean, brought to the number of particles that there are."""
    found = compare_over_set(values)
    d = values[found.best] - values
    for k in range(3):
        left = 500 * (d[k].sum() - d[k]) / 499
        assert found.error[k] ** 2 == pytest.approx(499 / 500 * ((left - left.mean()) ** 2).sum())
    assert found.total[found.best] == values.sum(axis=1).max()
    assert found.mean == pytest.approx(values.mean(axis=1))
    # Two particles, by hand: differences 5 and 1; without one of them the sum would be 2 or 10.
    assert compare_over_set(np.array([[5.0, 1.0], [0.0, 0.0]])).error == pytest.approx([0.0, 4.0])


def test_structures_are_compared_a_few_at_a_time_out_of_a_mapped_file(values, tmp_path, monkeypatch):
    np.save(tmp_path / "m.npy", np.tile(values, (40, 1)).astype(np.float32))
    mapped = np.load(tmp_path / "m.npy", mmap_mode="r")
    whole = compare_over_set(np.array(mapped))
    monkeypatch.setattr(model_comparison, "_BLOCK", 2000)
    tracemalloc.start()
    found = compare_over_set(mapped)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < mapped.nbytes
    for name, _, _ in COMPARED:
        assert getattr(found, name) == pytest.approx(getattr(whole, name))


def test_one_outlier_cannot_choose_a_structure_unnoticed():
    integrated = np.zeros((2, 200))
    integrated[0, 0], integrated[1, 1:] = 300.0, 1.0
    found = compare_over_set(integrated)
    assert found.best == 0 and found.for_best[1] == 1
    assert found.deciding.tolist() == [0, 1]
    assert found.fragile.tolist() == [False, True]
    integrated[0, 0] = 0.0
    found = compare_over_set(integrated)
    assert found.best == 1 and found.deciding[0] == 199 and not found.fragile.any()


def test_intervals_of_many_structures_are_doubted_where_some_are_the_same(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(mixture_posterior, "_LARGEST_EXACT", 1000)  # as of a problem too large for chains
    points = centres(42, 1.2, 3)
    apart = mixture_of(points, shares(42, 0.3), 2000, np.random.default_rng(3))[0]
    values = apart.copy()
    values[1] = values[0]  # as much as 300 particles of either
    np.save(tmp_path / "same.npy", values)
    numbers = _run(tmp_path / "same.npy", tmp_path / "same", bootstrap=0)
    assert [1, 2] in [group["structures"] for group in numbers["alike"]]
    assert numbers["sampler"]["method"] == "normal" and not numbers["sampler"]["sound"]
    assert "intervals are approximate" in caplog.text
    assert "ntervals are approximate" in (tmp_path / "same" / "ensemble.html").read_text(encoding="utf-8")
    np.save(tmp_path / "apart.npy", apart)
    assert _run(tmp_path / "apart.npy", tmp_path / "apart", bootstrap=0)["sampler"]["sound"]
