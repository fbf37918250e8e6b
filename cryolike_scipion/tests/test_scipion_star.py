"""STAR tables between the two halves: texts, numbers and what cannot be written."""

import os
import struct

import pytest

from cryolike_scipion.convert.star import number, parse_columns, quoted, read_columns, write_star


@pytest.mark.parametrize(
    "text",
    [
        "plain",
        "a b",
        "it's",
        'say "x"',
        "#hash",
        "_low",
        "$(x)",
        "data_x",
        "loop_",
        "",
        "é%d",
        "[x]",
        ";semi",
        "'quoted'",
        "a'b c",
    ],
)
def test_what_is_quoted_reads_back(tmp_path, text):
    path = str(tmp_path / "t.star")
    write_star(path, [("particles", ["first", "text", "last"], [["1", quoted(text), "2"]])])
    assert read_columns(path, "particles", ["text", "last"]) == {"text": [text], "last": ["2"]}


@pytest.mark.parametrize("text", ["a\nb", "a' b\" c"])
def test_what_star_cannot_hold_is_refused(text):
    with pytest.raises(ValueError, match="STAR"):
        quoted(text)


@pytest.mark.parametrize("value", [0.1, 1 / 3, -1e-17, 12345.678901234567, 3.0, 2e15, 7])
def test_numbers_read_back_exactly(value):
    assert struct.pack("d", float(number(value))) == struct.pack("d", value)


def test_integers_have_no_point():
    assert number(3.0) == "3"


def test_only_the_asked_columns_of_the_asked_table_are_read():
    text = "data_optics\nloop_\n_a #1\n1\n\ndata_particles\n\nloop_\n_a #1\n_b #2\n 5 6\n# note\n7 8\n\ndata_x\nloop_\n_a\n9\n"
    assert parse_columns(text.splitlines(), "particles", ["b", "c"], "text") == {"b": ["6", "8"]}


def test_missing_table_and_short_row_are_named():
    with pytest.raises(ValueError, match="here: there is no table data_particles"):
        parse_columns(["data_optics"], "particles", ["a"], "here")
    with pytest.raises(ValueError, match="here, line 5: 1 values for 2 columns"):
        parse_columns(["data_p", "loop_", "_a", "_b", "1"], "p", ["a"], "here")


def test_a_failed_writer_leaves_nothing(tmp_path):
    def rows():
        yield ["1"]
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_star(str(tmp_path / "t.star"), [("particles", ["a"], rows())])
    assert os.listdir(str(tmp_path)) == []
