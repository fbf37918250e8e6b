"""Scipion forms made from :mod:`cryolike_scipion.parameters`.

A form parameter has the engine parameter's name in Scipion's spelling (``max_shift`` is ``maxShift``), its
default, unit and help, so that the form, the command line and ``job.json`` always say the same.
"""

import pyworkflow.protocol.params as params
from pyworkflow.protocol.constants import LEVEL_ADVANCED, LEVEL_NORMAL

from ..parameters import ParameterError, get

# Where an engine parameter's name alone says too little.
_LABELS = {
    "amplitude_contrast": "Amplitude contrast",
    "assembly": "Biological assembly",
    "models": "Models of a file",
    "no_hydrogens": "Leave hydrogen atoms out?",
    "waters": "Take water?",
    "angular_step": "First angular step",
    "assigned_above": "STAR file per structure, from posterior",
    "atom_model": "Atoms become",
    "bad_images": "Images that cannot be used",
    "batch_images": "Images together",
    "batch_templates": "Views together",
    "cs": "Also write particles.cs?",
    "csv": "Also write scores.csv?",
    "downsample": "Box to reduce to",
    "invert": "Invert contrast?",
    "keep": "Scores to keep",
    "levels": "Finer levels",
    "local_range": "Range around the input poses",
    "match_amplitudes": "Match the structures' amplitudes?",
    "max_shift": "Largest shift",
    "memory": "Memory bound",
    "noise": "Noise model",
    "noise_per": "A noise spectrum for each",
    "no_normalise": "Keep grey values as they are?",
    "pilot": "Particles to learn the contrast from",
    "posterior_angle": "Angle that counts as one pose",
    "posterior_shift": "Shift that counts as one pose",
    "preview": "Projections to look at",
    "priors": "Prior weights of the structures",
    "concentration": "Particles assumed of each structure",
    "bootstrap": "Bootstrap replicates",
    "with_none": "Add 'none of these'?",
    "root": "Folder of relative image names",
    "residue_model": "One sphere per residue?",
    "resolution": "Resolution limit",
    "scale": "Prior of the contrast",
    "select": "Atoms to use",
    "shift_step": "First shift step",
    "shifts_x": "Shifts along x",
    "shifts_y": "Shifts along y",
    "symmetry": "Point group",
    "views": "File with views",
}
# What an empty field for a number means, where it is not found from the inputs.
_EMPTY = {
    ("particles", "downsample"): "as it is",
    ("particles", "mask_diameter"): "no mask",
    ("likelihood", "assigned_above"): "none",
    ("likelihood", "shift_prior"): "none",
    ("likelihood", "shifts_x"): "by the step",
    ("likelihood", "shifts_y"): "by the step",
    ("star", "amplitude_contrast"): "from the file",
    ("star", "pixel"): "from the file",
}
_LISTS = ("strings", "floats")
_TEXTS = ("str", "strings", "floats")


def form_name(name):
    """Return Scipion's spelling of an engine parameter: ``max_shift`` becomes ``maxShift``."""
    first, *others = name.split("_")
    return first + "".join(word.capitalize() for word in others)


def add_parameters(section, verb, names, **options):
    """Add engine parameters to a form.

    Parameters
    ----------
    section : Form or Group to add to.
    verb : the engine's verb.
    names : names of its parameters, in the order wanted.
    options : anything ``addParam`` takes, for all of them (such as ``condition``).
    """
    for name in names:
        add_parameter(section, verb, name, **options)


def add_parameter(section, verb, name, **options):
    """Add one engine parameter to a form; `options` go before what the parameter itself says."""
    parameter = get(verb, name)
    settings = {
        "label": _label(verb, parameter),
        "help": _help(parameter),
        "expertLevel": LEVEL_ADVANCED if parameter.expert else LEVEL_NORMAL,
    }
    default = parameter.default
    if parameter.kind == "choice":
        kind = params.EnumParam
        settings.update(choices=list(parameter.choices), default=parameter.choices.index(default))
    elif parameter.kind == "bool":
        kind = params.BooleanParam
        settings.update(default=default)
    elif parameter.kind == "path":
        kind = params.FileParam
        settings.update(default="", allowsNull=True)
    elif parameter.kind in _TEXTS:
        kind = params.StringParam
        text = default if isinstance(default, str) else " ".join(str(item) for item in default or ())
        settings.update(default=text, allowsNull=True)
    else:
        kind = params.FloatParam if parameter.kind == "float" else params.IntParam
        settings.update(default=default, allowsNull=default is None)
    if "default" in options and parameter.kind == "choice":
        options["default"] = parameter.choices.index(options["default"])
    settings.update(options)
    section.addParam(form_name(name), kind, **settings)


def add_alternatives(section, name, choices, label, text):
    """Add a choice between kinds of input, side by side; the first is the default."""
    display = params.EnumParam.DISPLAY_HLIST
    section.addParam(name, params.EnumParam, choices=choices, default=0, display=display, label=label, help=text)


def form_values(protocol, verb, names):
    """Return what a protocol's form says about some engine parameters.

    Parameters
    ----------
    protocol : the protocol with that form.
    verb, names : as for :func:`add_parameters`.

    Returns
    -------
    dict
        Parameter name to value in the parameter's own type; what was left empty is left out.

    Raises
    ------
    ParameterError
        If a value has the wrong type or is out of range.
    """
    values = {}
    for name in names:
        parameter = get(verb, name)
        value = getattr(protocol, form_name(name)).get()
        if parameter.kind == "choice":
            value = parameter.choices[value]
        elif isinstance(value, str):
            value = value.strip()
            if parameter.kind in _LISTS:
                value = [_item(parameter, word) for word in value.replace(",", " ").split()]
        if value not in (None, "", []):
            values[name] = parameter.check(value)
    return values


def form_errors(protocol, verb, names):
    """Return what is wrong with these parameters in the form, one line each."""
    errors = []
    for name in names:
        try:
            form_values(protocol, verb, [name])
        except ParameterError as error:
            errors.append(f"{error}.")
    return errors


def _item(parameter, word):
    if parameter.kind != "floats":
        return word
    try:
        return float(word)
    except ValueError:
        raise ParameterError(f"{parameter.name}: a number is expected, not {word!r}") from None


def _label(verb, parameter):
    """Return name and unit of a parameter, and what its field means when it is empty."""
    text = _LABELS.get(parameter.name) or parameter.name.replace("_", " ").capitalize()
    if parameter.unit and parameter.unit not in text.lower():
        text += f" ({parameter.unit})"
    if parameter.kind in ("int", "float") and parameter.default is None and not parameter.required:
        text += f", empty: {_EMPTY.get((verb, parameter.name), 'automatic')}"
    return text


def _help(parameter):
    if parameter.unit:
        return f"{parameter.help}\n\nUnit: {parameter.unit}."
    return parameter.help
