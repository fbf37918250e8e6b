"""Files of JSON that one run leaves for others."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import InputError

__all__ = ["understood"]


@contextmanager
def understood(path: Path, version: int, what: str, remedy: str) -> Iterator[dict[str, Any]]:
    """Content of a file of a ``version`` (its ``format``) that holds ``what`` of a run.

    Raises
    ------
    InputError
        With the remedy, if it cannot be read, is of another version, or what is done with its content goes wrong.
    """
    try:
        content = json.loads(path.read_text(encoding="ascii"))
        if content["format"] != version:
            raise ValueError(f"its format is {content['format']}")
        yield content
    except (OSError, ValueError, KeyError, TypeError, ArithmeticError) as error:
        raise InputError(f"the {what} of this run cannot be read ({error})", path, remedy=remedy) from None
