"""The lines of a viewer's form that open something when their eye is pressed."""

from pyworkflow.protocol.params import LabelParam


def add_buttons(section, *buttons):
    """Add lines to a form or group: (name, label, help) each."""
    for name, label, text in buttons:
        section.addParam(name, LabelParam, label=label, help=f"{text} Press the eye.")
