"""The one exception for input that cannot be used; its text is one line that says what to do."""

from __future__ import annotations

import os


class InputError(Exception):
    """Something the user gave cannot be used.

    ``str()`` is one line: ``FILE, row N: what is wrong (value). Remedy.`` The command line prints it and
    exits with status 2; no traceback is shown.

    Parameters
    ----------
    message : str
        What is wrong, with the value; no full stop.
    file : path, optional
        The file in question.
    row : int, optional
        Row of the table in `file`, counted from 1.
    remedy : str, optional
        What to do about it.

    Attributes
    ----------
    file, row, remedy
        As given; ``None`` where not.
    """

    def __init__(
        self,
        message: str,
        file: str | os.PathLike[str] | None = None,
        row: int | None = None,
        remedy: str | None = None,
    ) -> None:
        super().__init__(problem_line(message, file, row, remedy))
        self.file = file
        self.row = row
        self.remedy = remedy

    def __reduce__(self) -> tuple[type[InputError], tuple[str]]:
        """Survive the way between processes as the finished line."""
        return (type(self), (str(self),))


def problem_line(
    message: str,
    file: str | os.PathLike[str] | None = None,
    row: int | None = None,
    remedy: str | None = None,
) -> str:
    """Write a problem as one line, ``FILE, row N: what is wrong. Remedy.``

    Parameters
    ----------
    message, file, row, remedy
        As for :class:`InputError`.

    Returns
    -------
    str
        Line breaks and other control characters (a file name may hold them) are written as escapes.
    """
    where = ", ".join(
        part for part in (_printable(os.fspath(file)) if file is not None else "", f"row {row}" if row else "") if part
    )
    sentences = [_sentence(text) for text in (message, remedy) if text]
    return (f"{where}: " if where else "") + " ".join(sentences)


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() or c == " " else c.encode("unicode_escape").decode("ascii") for c in text)


def _sentence(text: str) -> str:
    text = _printable(text.strip())
    return text if text.endswith((".", "!", "?")) else text + "."
