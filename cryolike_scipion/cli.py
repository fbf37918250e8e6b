"""The command ``cryolike-scipion``: its options come from :mod:`cryolike_scipion.parameters`.

Exit status: 0 done; 1 an unexpected error (its traceback is in log.txt); 2 bad input or a bad option, told in
one line; 130 interrupted.  torch is imported only when a verb starts to work.
"""

import argparse
import json
import logging
import os
import platform
import sys
import time
import traceback
from pathlib import Path
from typing import Any, Dict, List, NoReturn, Optional, Sequence, Tuple, Union

from . import __version__
from .constants import ENGINE_MODULES
from .parameters import SUMMARIES, VERBS, Parameter, ParameterError, complete

PROGRAM = "cryolike-scipion"
_LOGGER = "cryolike_scipion"
_PROGRESS_LOGGER = "cryolike_scipion.engine.progress"
logger = logging.getLogger(__name__)


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Run the command line and return its exit status."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace", line_buffering=True)
    given = vars(_parser().parse_args(arguments))
    verb = given.pop("verb")
    try:
        parameters = complete(verb, given)
        if verb == "run":
            verb, parameters = read_job(parameters["job"], parameters["device"], parameters["threads"])
    except ParameterError as error:
        return _refuse(verb, error)
    return _work(verb, parameters)


def read_job(path: str, device: Optional[str] = None, threads: Optional[int] = None) -> Tuple[str, Dict[str, Any]]:
    """Read the verb and its completed parameters from a job file.

    Parameters
    ----------
    path : JSON file ``{"version": …, "verb": …, "parameters": {…}}``; file names in it are relative to the
        current folder.
    device, threads : used in place of the file's values when they are not None.

    Raises
    ------
    ParameterError
        If the file cannot be read, was written by another version, or holds an unknown verb or parameter.
    """
    try:
        job = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ParameterError(f"{path}: cannot be read as a job file ({error})") from None
    if not isinstance(job, dict) or set(job) != {"version", "verb", "parameters"}:
        raise ParameterError(f"{path}: a job file holds version, verb and parameters, and nothing else")
    if job["version"] != __version__:
        raise ParameterError(
            f"{path}: was written by version {job['version']}, but this is {PROGRAM} {__version__}. "
            "Install the same version in both environments."
        )
    verb, given = job["verb"], job["parameters"]
    if not isinstance(verb, str) or verb not in VERBS or verb == "run":
        raise ParameterError(f"{path}: unknown verb {verb!r}")
    if not isinstance(given, dict):
        raise ParameterError(f"{path}: parameters must be a table of names and values")
    names = [parameter.name for parameter in VERBS[verb]]
    overrides = {"device": device, "threads": threads}
    given = {
        **given,
        **{name: value for name, value in overrides.items() if value is not None and name in names},
    }
    try:
        return verb, complete(verb, given)
    except ParameterError as error:
        raise ParameterError(f"{path}: {error}") from None


# ---------------------------------------------------------------- the options


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {_one_line(message)}. See {self.prog} --help.\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog=PROGRAM,
        allow_abbrev=False,
        description="Which structure does each cryo-EM particle show, at which pose, and how sure is it?",
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True, parser_class=_Parser)
    for verb, parameters in VERBS.items():
        sub = verbs.add_parser(
            verb,
            help=SUMMARIES[verb],
            description=SUMMARIES[verb][0].upper() + SUMMARIES[verb][1:] + ".",
            allow_abbrev=False,
            argument_default=argparse.SUPPRESS,
        )
        expert = sub.add_argument_group("expert options")
        for parameter in parameters:
            _add_option(expert if parameter.expert else sub, parameter)
    return parser


def _add_option(group: Any, parameter: Parameter) -> None:
    options: Dict[str, Any] = {"help": _help(parameter)}
    if parameter.kind == "bool":
        options["action"] = "store_true"
    else:
        options["metavar"] = parameter.metavar or None
        if parameter.kind in ("int", "float", "floats"):
            options["type"] = _number
        if parameter.kind == "choice":
            options["choices"] = parameter.choices
        if parameter.is_list:
            options["nargs"] = "+"
    if parameter.positional:
        group.add_argument(parameter.name, **options)
        return
    if parameter.is_list:
        options["action"] = "extend"
    group.add_argument(parameter.flag, dest=parameter.name, required=parameter.required, **options)


def _help(parameter: Parameter) -> str:
    notes = [parameter.unit] if parameter.unit else []
    if parameter.default is not None and parameter.kind != "bool":
        default = parameter.default
        default = " ".join(default) if isinstance(default, (list, tuple)) else default
        notes.append(f"default {default:g}" if isinstance(default, float) else f"default {default}")
    text = parameter.help + (f" [{'; '.join(notes)}]" if notes else "")
    return text.replace("%", "%%")


def _number(text: str) -> Union[int, float, str]:
    if text == "auto":
        return text
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"a number is expected, not {text!r}") from None


# ---------------------------------------------------------------- the work


def _work(verb: str, parameters: Dict[str, Any]) -> int:
    if sys.version_info < (3, 10):
        return _refuse(
            verb,
            f"the engine needs Python 3.10 or later, and {sys.executable} is {platform.python_version()}",
        )
    if parameters.get("threads") is not None:
        # before torch is imported: its OpenMP reads the variable once
        os.environ["OMP_NUM_THREADS"] = str(parameters["threads"])
    try:
        from . import engine
        from .engine.compute import use_threads
        from .engine.errors import InputError
    except ModuleNotFoundError as error:
        return _refuse_missing(verb, error)
    progress = engine.Progress()
    try:
        _start_log(_log_file(verb, parameters), progress.shows_bar)
    except OSError as error:
        return _refuse(
            verb,
            f"{parameters.get('out')}: the output folder cannot be used ({error.strerror}). Give another --out.",
        )
    try:
        threads = use_threads(parameters.get("threads"))
        _log_start(verb, parameters, threads)
        engine.run(verb, progress, **parameters)
        logger.debug("done")
        return 0
    except (InputError, ParameterError) as error:
        logger.debug("stopped: %s", _one_line(error))
        return _refuse(verb, error)
    except KeyboardInterrupt:
        logger.debug("interrupted")
        print(f"{PROGRAM} {verb}: interrupted; the same command continues where it stopped", file=sys.stderr)
        return 130
    except Exception as error:  # whatever happens, the log says where
        if isinstance(error, ModuleNotFoundError) and error.name in ENGINE_MODULES:
            return _refuse_missing(verb, error)
        return _crash(verb, error)
    finally:
        _stop_log()


def _log_file(verb: str, parameters: Dict[str, Any]) -> Optional[Path]:
    if "run" in parameters:  # report and inspect: beside the results that they read
        folder = Path(parameters["run"])
        return folder / "log.txt" if folder.is_dir() and os.access(folder, os.W_OK) else None
    if verb == "star":  # writes a file, into a folder that may be anyone's
        return None
    folder = Path(parameters["out"])
    folder.mkdir(parents=True, exist_ok=True)
    return folder / "log.txt"


class _Console(logging.Handler):
    """Messages to standard output, warnings and errors to standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.levelno >= logging.WARNING:
            print(f"warning: {text}", file=sys.stderr)
        else:
            print(text)


def _start_log(path: Optional[Path], shows_bar: bool) -> None:
    console = _Console(logging.INFO)
    if shows_bar:
        console.addFilter(lambda record: record.name != _PROGRESS_LOGGER)
    handlers: List[logging.Handler] = [console]
    if path is not None:
        file = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        handlers.append(file)
    root = logging.getLogger(_LOGGER)
    for handler in handlers:
        root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    root.propagate = False


def _stop_log() -> None:
    root = logging.getLogger(_LOGGER)
    for handler in list(root.handlers):
        root.removeHandler(handler)
        handler.close()
    root.setLevel(logging.NOTSET)
    root.propagate = True


def _log_start(verb: str, parameters: Dict[str, Any], threads: int) -> None:
    import numpy
    import torch

    logger.debug(
        "%s %s %s, Python %s, numpy %s, torch %s, %d threads, %s, %s",
        PROGRAM,
        __version__,
        verb,
        platform.python_version(),
        numpy.__version__,
        torch.__version__,
        threads,
        platform.machine(),
        time.strftime("%Y-%m-%d %H:%M:%S %z"),
    )
    logger.debug("parameters %s", json.dumps(parameters, ensure_ascii=False))


def _crash(verb: str, error: Exception) -> int:
    logger.debug("%s", traceback.format_exc())
    logs = [handler.baseFilename for handler in logging.getLogger(_LOGGER).handlers if isinstance(handler, logging.FileHandler)]
    if logs:
        where = f"The traceback is in {logs[0]}."
    else:
        where = "The traceback follows."
        traceback.print_exc()
    print(f"{PROGRAM} {verb}: unexpected {type(error).__name__}: {_one_line(error)}. {where}", file=sys.stderr)
    return 1


def _refuse_missing(verb: str, error: ModuleNotFoundError) -> int:
    return _refuse(
        verb,
        f"the Python package {error.name!r} is missing in {sys.executable}. "
        "Install the engine: pip install 'scipion-em-cryolike[engine]'.",
    )


def _refuse(verb: str, message: object) -> int:
    print(f"{PROGRAM} {verb}: {_one_line(message)}", file=sys.stderr)
    return 2


def _one_line(message: object) -> str:
    return str(message).replace("\r", "\\r").replace("\n", "\\n")
