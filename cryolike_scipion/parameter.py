"""One parameter of a verb: what it is, and whether a value fits it.

Standard library only and Python 3.8, because Scipion's own Python imports this file too.
"""

import math
import os
from dataclasses import dataclass
from typing import Any, Optional, Tuple

KINDS = ("path", "paths", "str", "strings", "int", "float", "floats", "bool", "choice")
_LISTS = {"paths": "path", "strings": "str", "floats": "float"}


class ParameterError(ValueError):
    """A parameter that is unknown, missing or of the wrong type.  ``str()`` is one line."""


@dataclass(frozen=True)
class Parameter:
    """One parameter of a verb.

    Attributes
    ----------
    name : key in ``job.json``; the command line writes it ``--name`` with dashes.
    kind : one of :data:`KINDS`; ``paths``, ``strings`` and ``floats`` are lists.
    default : value when it is not given; ``None`` means that the program finds it.
    unit : unit of the value (``"Å"``, ``"degree"``, ``"pixel"``, ``"GiB"``, …) or an empty text.
    help : what it is, and what changes when it is raised.
    choices : the allowed texts of a ``choice``.
    expert : hidden in a Scipion form unless the expert level is asked for.
    metavar : the placeholder in the command line's help.
    required : it has to be given.
    positional : on the command line it is given without ``--name``.
    minimum, maximum, above : smallest and greatest allowed number, and the number that it must exceed.
    """

    name: str
    kind: str
    default: Any = None
    unit: str = ""
    help: str = ""
    choices: Tuple[str, ...] = ()
    expert: bool = False
    metavar: str = ""
    required: bool = False
    positional: bool = False
    minimum: Optional[float] = None
    maximum: Optional[float] = None
    above: Optional[float] = None

    @property
    def flag(self) -> str:
        """The option as it is written on the command line."""
        return "--" + self.name.replace("_", "-")

    @property
    def is_list(self) -> bool:
        """Whether the value is a list."""
        return self.kind in _LISTS

    def check(self, value: Any) -> Any:
        """Return `value` in this parameter's type.

        Raises
        ------
        ParameterError
            If the value has another type, is not among the choices or is out of range.
        """
        if value is None or (value == "auto" and self.default is None and self.kind in ("int", "float")):
            if self.required:
                raise ParameterError(f"{self.name}: a value is required")
            return list(self.default) if isinstance(self.default, (list, tuple)) else self.default
        if self.is_list:
            items = list(value) if isinstance(value, (list, tuple)) else [value]
            if self.required and not items:
                raise ParameterError(f"{self.name}: at least one value is required")
            return [self._check_one(item, _LISTS[self.kind]) for item in items]
        return self._check_one(value, self.kind)

    def _check_one(self, value: Any, kind: str) -> Any:
        if kind == "bool":
            if not isinstance(value, bool):
                raise ParameterError(f"{self.name}: true or false is expected, not {value!r}")
            return value
        if kind in ("int", "float"):
            return self._check_number(value, kind)
        if kind == "path" and isinstance(value, os.PathLike):
            value = os.fspath(value)
        if not isinstance(value, str):
            raise ParameterError(f"{self.name}: a text is expected, not {value!r}")
        if kind == "path" and (not value or "\0" in value):
            raise ParameterError(f"{self.name}: {value!r} is not a file name")
        if kind == "choice" and value not in self.choices:
            raise ParameterError(f"{self.name}: {value!r} is not one of {', '.join(self.choices)}")
        return value

    def _check_number(self, value: Any, kind: str) -> Any:
        unit = f" {self.unit}" if self.unit else ""
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ParameterError(f"{self.name}: a number is expected, not {value!r}")
        if not math.isfinite(value):
            raise ParameterError(f"{self.name}: a finite number is expected, not {value!r}")
        if kind == "int" and value != int(value):
            raise ParameterError(f"{self.name}: a whole number is expected, not {value!r}")
        if self.minimum is not None and value < self.minimum:
            raise ParameterError(f"{self.name}: {value:g}{unit} is less than {self.minimum:g}")
        if self.maximum is not None and value > self.maximum:
            raise ParameterError(f"{self.name}: {value:g}{unit} is more than {self.maximum:g}")
        if self.above is not None and value <= self.above:
            raise ParameterError(f"{self.name}: {value:g}{unit} must be more than {self.above:g}")
        return int(value) if kind == "int" else float(value)
