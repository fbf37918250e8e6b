"""Opens a project's window, every form, wizard and viewer of this plugin, and presses what a user presses.

Run by :func:`cryolike_scipion.tests.gui_desktop.drive` as a program of its own: the folder of the project, and one for the
pictures.  It ends with 1 after any exception, also one in a callback of a window.
"""

import os
import subprocess
import sys
import time
import tkinter as tk
import traceback

import pyworkflow
from pyworkflow.gui.project import ProjectWindow
from pyworkflow.viewer import DESKTOP_TKINTER

from cryolike_scipion.tests.gui_viewers import VIEWERS
from cryolike_scipion.tests.gui_wizards import WIZARDS


class Driver:
    """The project's window and what is done with it."""

    def __init__(self, path, pictures):
        self.pictures, self.failures, self._pressed = os.path.abspath(pictures), [], set()
        tk.Tk.report_callback_exception = self._report
        tk.Misc.mainloop = lambda *_: None  # Scipion's windows wait in it; here the driver lets them work
        domain = pyworkflow.Config.getDomain()
        domain.getPlugins()
        domain.getProtocols()
        domain.getViewers()
        domain.getWizards()
        self.domain = domain
        self.main = ProjectWindow(path)
        self.project = self.main.project
        self.root = self.main.root
        self.root.deiconify()
        self.pump(2)
        self.runs = {run.getClassName(): run for run in self.project.getRuns()}

    def _report(self, kind, value, trace):
        self.failures.append(f"{kind.__name__}: {value}")
        traceback.print_exception(kind, value, trace)

    def pump(self, seconds=0.2):
        """Let the windows work for some time."""
        end = time.time() + seconds
        while time.time() < end:
            self.root.update()
            time.sleep(0.01)

    def picture(self, name, window=None):
        """Take a picture of a window with its frame, or of the whole screen."""
        target = "root"
        if window is not None:
            window.lift()
            self.pump(0.1)
            target = str(int(window.wm_frame(), 16))
        self.pump(0.1)
        path = os.path.join(self.pictures, f"{name}.png")
        subprocess.run(["import", "-window", target, path], check=True, timeout=60)

    def project_window(self):
        """Select every run of ours in turn, and see that its summary and its methods are shown."""
        window = self.main.viewWidget
        pages = _find(self.root, "TNotebook")
        for name in sorted(self.runs, key=lambda name: name == "ProtCryolikeLikelihood"):
            window._selectItemProtocol(self.runs[name])
            window.updateRunsGraph()  # draws the frame of what is selected
            self.pump(0.3)
            texts = [text.get("1.0", tk.END) for text in (window.summaryText, window.methodText)]
            if name.startswith("ProtCryolike") and not (
                len(texts[0]) > 40 and "REFERENCES" in texts[1] and len(texts[1]) > 300
            ):
                raise AssertionError(f"{name} says {texts}")
        self.picture("project")
        pages.select(1)
        self.pump(0.3)
        self.picture("project-methods")
        pages.select(0)

    # -------------------------- forms --------------------------

    def form(self, protocol):
        """Open a protocol's form."""
        from pyworkflow.gui.form import FormWindow

        form = FormWindow("Protocol run", protocol, lambda *_: None, self.main)
        form.adjustSize()
        form.show(center=True)
        form.root.geometry("+150+40")
        self.pump(0.4)
        return form

    def look_at_form(self, name):
        """Show every page of a form."""
        form = self.form(self.runs[name] if name in self.runs else self.new(name))
        self._pages(form, f"form-{name}")
        self.cite(form)
        if form.protocol.hasExpert():
            _find(form.root, "Radiobutton", "Advanced").invoke()
            form.adjustSize()
            self._pages(form, f"advanced-{name}")
        form.root.destroy()
        self.pump(0.2)

    def _pages(self, form, name):
        notebook = _find(form.root, "TNotebook")
        for number, tab in enumerate(notebook.tabs(), start=1):
            notebook.select(tab)
            self.pump()
            self.picture(f"{name}-{number}", form.root)

    def cite(self, form):
        """Press *Cite*, and see that it shows the papers of the form's node."""
        papers = form.protocol.getCitations(bibTexOutput=True).values()
        shown = []

        def read():
            dialog = self.dialog(form)
            shown.append(_find(dialog, "Text").get("1.0", tk.END))
            self.picture(f"cite-{form.protocol.getClassName()}", dialog)
            dialog._handleResult(0)

        self.root.after(800, read)
        _find(form.root, "Label", "Cite").event_generate("<Button-1>")
        self.pump(0.2)
        if not papers or not all(str(paper["year"]) in shown[0] for paper in papers):
            raise AssertionError(f"Cite shows {shown}")

    @staticmethod
    def dialog(form):
        """Return the dialog that is open over a form."""
        return next(child for child in reversed(form.root.winfo_children()) if isinstance(child, tk.Toplevel))

    def new(self, name, **values):
        """Return a new protocol, connected to what the project has."""
        protocol = self.project.newProtocol(self.domain.getProtocols()[name], **values)
        likelihood = self.runs["ProtCryolikeLikelihood"]
        if name == "ProtCryolikeSelect":
            protocol.inputParticles.set(likelihood)
            protocol.inputParticles.setExtended("outputParticles")
        return protocol

    # -------------------------- viewers --------------------------

    def viewer(self, protocol):
        """Open what *Analyze results* opens."""
        found = self.domain.findViewers(protocol, DESKTOP_TKINTER)
        if not found or not found[0].__module__.startswith("cryolike_scipion"):
            raise AssertionError(f"Scipion opens {found} for {protocol.getClassName()}")
        viewer = found[0](project=self.project, protocol=protocol, parent=self.main)
        return viewer

    def press(self, viewer, name, seconds=0.3, show=True):
        """Press the eye of a viewer's parameter; return the windows that come, which are open if `show` says so."""
        began = time.time()
        self._pressed.add((viewer, name))
        views = viewer._getVisualizeDict()[name](name)
        for view in views if show else ():
            view.show()
        self.root.update()
        print(f"{name}: {time.time() - began:.2f} s")
        self.pump(seconds)
        return views

    def all_pressed(self, viewer):
        """Insist that every eye of a viewer has been pressed."""
        left = [name for name in viewer._getVisualizeDict() if (viewer, name) not in self._pressed]
        if left:
            raise AssertionError(f"{viewer} has more buttons: {left}")

    def tabs(self, view, name):
        """Look at all tabs of a window, and close it."""
        for number in range(len(view._book.tabs())):
            view.select(number)
            self.pump(0.1)
            self.picture(f"viewer-{name}-{number + 1}", view.window)
        view.window.destroy()

    def wait(self, protocol, seconds=240):
        """Wait until a run has finished; return it."""
        end = time.time() + seconds
        while time.time() < end:
            self.pump(1)
            self.project._updateProtocol(protocol)
            if protocol.isFinished():
                return protocol
            if protocol.isFailed() or protocol.isAborted():
                break
        raise AssertionError(f"{protocol.getObjLabel()} is {protocol.getStatus()}: {protocol.getErrorMessage()}")


def _find(widget, kind, text=""):
    """Return the first widget of a class below another, whose text holds some words; None without one."""
    for child in widget.winfo_children():
        if child.winfo_class() == kind and (not text or text in str(child.cget("text"))):
            return child
        found = _find(child, kind, text)
        if found is not None:
            return found
    return None


def main():
    """Do everything; return the exit status."""
    driver = Driver(sys.argv[1], sys.argv[2])
    driver.project_window()
    steps = [
        *((f"form {name}", lambda name=name: driver.look_at_form(name)) for name in sorted(driver.domain.getProtocols())
          if name.startswith("ProtCryolike") and name != "ProtCryolikeBase"),
        *((f"wizard {step.__name__}", lambda step=step: step(driver)) for step in WIZARDS),
        *((f"viewer {step.__name__}", lambda step=step: step(driver)) for step in VIEWERS),
    ]  # fmt: skip
    wanted = sys.argv[3:]
    for name, step in steps:
        if wanted and not any(name.startswith(text) for text in wanted):
            continue
        print("----", name, flush=True)
        try:
            step()
        except Exception:
            traceback.print_exc()
            driver.failures.append(name)
            driver.picture(f"failed-{name.replace(' ', '-')}")
    driver.picture("project-after")
    print("failures:", driver.failures)
    return 1 if driver.failures else 0


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    os._exit(status)  # Scipion's threads for its own server would keep the process
