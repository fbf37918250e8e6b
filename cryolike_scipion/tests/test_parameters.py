"""The table of parameters: complete, consistent, and strict about what it is given."""

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryolike_scipion.parameters import KINDS, SUMMARIES, VERBS, ParameterError, complete, get

REQUIRED = {"particles": ["a.star"], "structures": ["b.mrc"], "out": "scores"}
ALL = [(verb, parameter) for verb, parameters in VERBS.items() for parameter in parameters]
IDS = [f"{verb}-{parameter.name}" for verb, parameter in ALL]


def test_the_verbs_are_those_of_the_command_line():
    assert list(VERBS) == [
        "templates",
        "particles",
        "likelihood",
        "merge",
        "ensemble",
        "inspect",
        "report",
        "simulate",
        "star",
        "run",
    ]
    assert list(SUMMARIES) == list(VERBS)


@pytest.mark.parametrize("verb, parameter", ALL, ids=IDS)
def test_each_parameter_is_described(verb, parameter):
    assert parameter.kind in KINDS
    assert parameter.help.endswith((".", ").")) and len(parameter.help) > 15
    assert bool(parameter.choices) == (parameter.kind == "choice")
    assert not (parameter.required and parameter.default is not None)
    if parameter.default is not None:
        parameter.check(parameter.default)


@pytest.mark.parametrize("verb", VERBS)
def test_names_are_unique_and_usable_as_options(verb):
    names = [parameter.name for parameter in VERBS[verb]]
    assert len(set(names)) == len(names)
    assert all(name.isidentifier() and name == name.lower() for name in names)


@pytest.mark.parametrize("name", ["max_shift", "shift_step", "mask_diameter", "resolution", "local_range", "memory"])
def test_quantities_have_units(name):
    assert get("likelihood", name).unit in ("Å", "degree", "GiB")


def test_defaults_are_filled_in_the_order_of_the_table():
    completed = complete("likelihood", REQUIRED)
    assert list(completed) == [parameter.name for parameter in VERBS["likelihood"]]
    assert completed["search"] == "hierarchical"
    assert completed["symmetry"] == ["C1"]
    assert completed["angular_step"] is None and completed["max_shift"] is None
    assert completed["bad_images"] == "stop"


def test_the_default_list_is_not_shared():
    complete("likelihood", REQUIRED)["symmetry"].append("C4")
    assert complete("likelihood", REQUIRED)["symmetry"] == ["C1"]


def test_values_take_their_own_type():
    completed = complete(
        "likelihood",
        {
            **REQUIRED,
            "particles": Path("a b.star"),
            "max_shift": 5,
            "threads": 2.0,
            "angular_step": "auto",
            "resolution": None,
        },
    )
    assert completed["particles"] == ["a b.star"]
    assert isinstance(completed["max_shift"], float) and isinstance(completed["threads"], int)
    assert completed["angular_step"] is None and completed["resolution"] is None


@pytest.mark.parametrize(
    "change, words",
    [
        ({"serach": "local"}, "did you mean 'search'"),
        ({"search": "thorough"}, "not one of hierarchical, exhaustive, local, fixed"),
        ({"max_shift": "far"}, "max_shift: a number is expected"),
        ({"max_shift": -1}, "max_shift: -1 Å is less than 0"),
        ({"max_shift": math.inf}, "finite"),
        ({"resolution": 0}, "must be more than 0"),
        ({"amplitude_contrast": 7}, "more than 1"),
        ({"threads": 1.5}, "whole number"),
        ({"threads": True}, "number is expected"),
        ({"pilot": "auto"}, "number is expected"),
        ({"invert": "yes"}, "true or false"),
        ({"labels": [3]}, "labels: a text is expected"),
        ({"root": "a\0b"}, "not a file name"),
        ({"particles": []}, "at least one"),
        ({"out": None}, "out: a value is required"),
    ],
)
def test_wrong_values_are_refused_in_one_line(change, words):
    with pytest.raises(ParameterError, match=words) as caught:
        complete("likelihood", {**REQUIRED, **change})
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("likelihood: ")


def test_unknown_verb():
    with pytest.raises(ParameterError, match="unknown verb 'guess'"):
        complete("guess", {})


def test_hierarchical_search_is_not_offered():
    assert get("likelihood", "search").choices == ("hierarchical", "exhaustive", "local", "fixed")
    with pytest.raises(KeyError):
        get("likelihood", "hierarchy")


_ANYTHING = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.lists(st.text()))


@given(st.sampled_from(ALL), _ANYTHING)
def test_anything_is_either_refused_or_of_the_right_type(which, value):
    _, parameter = which
    types = {"int": int, "float": float, "bool": bool, "path": str, "str": str, "choice": str}
    try:
        checked = parameter.check(value)
    except ParameterError:
        return
    if checked is None:
        assert parameter.default is None and not parameter.required
    elif parameter.is_list:
        assert isinstance(checked, list)
    else:
        assert type(checked) is types[parameter.kind]
        if parameter.choices:
            assert checked in parameter.choices
