"""Write docs/command-line.md from the table of parameters; --check only says whether it is up to date."""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from cryolike_scipion.parameters import SUMMARIES, VERBS  # noqa: E402

PAGE = ROOT / "docs" / "command-line.md"

HEAD = """# The command line

*This page is made from `cryolike_scipion/parameters.py` by `python tools/command_line_page.py`.*

`cryolike-scipion VERB --help` shows the same. Scipion's forms have the same names, units and defaults, and a
file `job.json`, `{"version": "…", "verb": "likelihood", "parameters": {"particles": ["…"], …}}` with `_` in
place of `-`, runs with `cryolike-scipion run --job job.json`. An option marked ◦ is for experts.

Exit status: 0 done; 2 bad input or a bad option, told in one line; 1 an unexpected error, whose traceback is
in `log.txt` in the output folder; 130 interrupted. The same command continues a run that was stopped.
"""


def page():
    """Return the page as text."""
    parts = [HEAD]
    for verb, parameters in VERBS.items():
        summary = SUMMARIES[verb][0].upper() + SUMMARIES[verb][1:]
        parts.append(f"\n## {verb}\n\n{summary}.\n\n| option | default | unit | meaning |\n|---|---|---|---|\n")
        parts += [_row(parameter) for parameter in parameters]
    return "".join(parts)


def _row(parameter):
    name = parameter.name if parameter.positional else parameter.flag
    if parameter.kind != "bool":
        name += f" {parameter.metavar or '|'.join(parameter.choices)}" + ("…" if parameter.is_list else "")
    name = name.replace("|", "\\|")
    default = parameter.default
    if parameter.required:
        default = "required"
    elif default is None or parameter.kind == "bool":
        default = ""
    elif isinstance(default, tuple):
        default = " ".join(default)
    elif isinstance(default, float):
        default = f"{default:g}"
    mark = " ◦" if parameter.expert else ""
    return f"| `{name}`{mark} | {default} | {parameter.unit} | {parameter.help} |\n"


def main():
    """Write or check the page; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    if parser.parse_args().check:
        return 0 if PAGE.read_text(encoding="utf-8") == page() else 1
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
