"""A desktop of its own for tests of windows: Xvfb, a window manager, and a driver that presses what a user presses."""

import os
import re
import subprocess
import sys
import time

_HOSTS = "[localhost]\nPARALLEL_COMMAND = mpirun -np %_(JOB_NODES)d %_(COMMAND)s\n"
# What a broken window writes into its log.
_BROKEN = re.compile(r"Traceback|Exception in Tkinter callback|_tkinter\.TclError|^E .*Error", re.MULTILINE)


def set_up_scipion(folder):
    """Set Scipion's environment with its home in `folder`; before the first import of pyworkflow."""
    hosts = os.path.join(str(folder), "hosts.conf")
    with open(hosts, "w") as stream:
        stream.write(_HOSTS)
    os.environ.update(
        {
            "SCIPION_DOMAIN": "pwem",
            "SCIPION_HOSTS": hosts,
            "SCIPION_PYTHON": sys.executable,
            "SCIPION_HOME": str(folder),
            "SCIPION_USER_DATA": os.path.join(str(folder), "data"),
            "SCIPION_TEST_NOSYNC": "True",
            "SCIPION_NOTIFY": "False",
            "MPLBACKEND": "Agg",
        }
    )


class Desktop:
    """A screen of 1600 × 1000 pixels that nobody sees, with windows that have frames.

    Attributes
    ----------
    display : str
        Value of DISPLAY for its programs.
    """

    def __enter__(self):
        reader, writer = os.pipe()
        screen = ["-screen", "0", "1600x1000x24", "-nolisten", "tcp"]
        silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._server = subprocess.Popen(["Xvfb", "-displayfd", str(writer), *screen], pass_fds=(writer,), **silent)
        os.close(writer)
        with os.fdopen(reader) as stream:
            self.display = ":" + stream.readline().strip()
        self._manager = subprocess.Popen(["openbox"], env=dict(os.environ, DISPLAY=self.display), **silent)
        time.sleep(0.5)
        return self

    def __exit__(self, *_):
        for process in (self._manager, self._server):
            process.terminate()
            process.wait(timeout=20)


def drive(desktop, project, pictures, timeout=600):
    """Open the windows of a project one after the other, press what a user presses, and take pictures.

    Parameters
    ----------
    desktop : Desktop
    project : folder of a project made by :mod:`cryolike_scipion.tests.gui_project`.
    pictures : folder for the pictures.
    timeout : in seconds.

    Returns
    -------
    str
        What went wrong, with the end of the log; empty if nothing did.
    """
    environ = dict(os.environ, DISPLAY=desktop.display, QT_QPA_PLATFORM="xcb")
    run = subprocess.run(
        [sys.executable, "-m", "cryolike_scipion.tests.gui_driver", str(project), str(pictures)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environ,
        timeout=timeout,
        check=False,
    )
    log = run.stdout.decode("utf-8", "replace")
    with open(os.path.join(str(pictures), "log.txt"), "w", encoding="utf-8") as stream:
        stream.write(log)
    if run.returncode or _BROKEN.search(log):
        return f"the driver ended with {run.returncode}:\n{log[-6000:]}"
    return ""
