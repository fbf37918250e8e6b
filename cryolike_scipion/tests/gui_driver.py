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

import numpy as np
import pyworkflow
from pyworkflow.gui.project import ProjectWindow
from pyworkflow.viewer import DESKTOP_TKINTER


class Driver:
    """The project's window and what is done with it."""

    def __init__(self, path, pictures):
        self.pictures, self.failures = os.path.abspath(pictures), []
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
        notebook = _find(form.root, "TNotebook")
        for number, tab in enumerate(notebook.tabs(), start=1):
            notebook.select(tab)
            self.pump()
            self.picture(f"form-{name}-{number}", form.root)
        form.root.destroy()
        self.pump(0.2)

    def new(self, name, **values):
        """Return a new protocol, connected to what the project has."""
        protocol = self.project.newProtocol(self.domain.getProtocols()[name], **values)
        likelihood = self.runs["ProtCryolikeLikelihood"]
        if name == "ProtCryolikeSelect":
            protocol.inputParticles.set(likelihood)
            protocol.inputParticles.setExtended("outputParticles")
        return protocol

    # -------------------------- wizards --------------------------

    def wizards(self):
        """Use every wizard, and see that the form takes what it gives."""
        from cryolike_scipion import wizards

        form = self.form(self.runs["ProtCryolikeLikelihood"])
        mask = wizards.CryolikeMaskWizard()
        mask.show(form)
        self.pump(0.4)
        mask.window.set(140)
        mask.window.set(120.4)
        self.picture("wizard-mask", mask.window.window)
        mask.window.ok.invoke()
        self.expect(form, "maskDiameter", 120.4)
        limit = wizards.CryolikeResolutionWizard()
        limit.show(form)
        self.pump(0.4)
        limit.window.set(14)
        self.picture("wizard-resolution", limit.window.window)
        limit.window.ok.invoke()
        self.expect(form, "resolution", 14.0)
        wizards.CryolikeShiftWizard().show(form)
        shift = float(form.widgetDict["maxShift"].get())
        if not 4 <= shift <= 19.2:
            raise AssertionError(f"the shift wizard gave {shift}")
        form.root.destroy()
        form = self.form(self.runs["ProtCryolikeGenerateTemplates"])
        self.root.after(2500, lambda: self.choose_symmetry(form))
        wizards.CryolikeSymmetryWizard().show(form)
        self.expect(form, "symmetry", "C4")
        form.root.destroy()
        form = self.form(self.new("ProtCryolikeSelect"))
        threshold = wizards.CryolikeThresholdWizard()
        threshold.show(form)
        self.pump(0.4)
        threshold.window.setThreshold(25)
        self.picture("wizard-threshold", threshold.window.window)
        threshold.window.button.invoke()
        self.expect(form, "threshold", 25.0)
        form.root.destroy()

    def choose_symmetry(self, form):
        """Choose the fourth group of the list that is open now."""
        dialog = next(child for child in form.root.winfo_children() if hasattr(child, "tree"))
        dialog.tree.selection_set(dialog.tree.get_children()[3])
        self.picture("wizard-symmetry", dialog)
        dialog._handleResult(0)

    @staticmethod
    def expect(form, name, value):
        """Insist that a form's widget has a value."""
        found = form.widgetDict[name].get()
        if (float(found) if isinstance(value, float) else found) != value:
            raise AssertionError(f"the form has {found!r} for {name}, not {value!r}")

    # -------------------------- viewers --------------------------

    def viewer(self, protocol):
        """Open what *Analyze results* opens."""
        found = self.domain.findViewers(protocol, DESKTOP_TKINTER)
        if not found or not found[0].__module__.startswith("cryolike_scipion"):
            raise AssertionError(f"Scipion opens {found} for {protocol.getClassName()}")
        viewer = found[0](project=self.project, protocol=protocol, parent=self.main)
        return viewer

    def press(self, viewer, name, seconds=0.3):
        """Press the eye of a viewer's parameter; return the windows that come."""
        began = time.time()
        views = viewer._getVisualizeDict()[name](name)
        for view in views:
            view.show()
        self.root.update()
        print(f"{name}: {time.time() - began:.2f} s")
        self.pump(seconds)
        return views

    def tabs(self, view, name):
        """Look at all tabs of a window, and close it."""
        for number in range(len(view._book.tabs())):
            view.select(number)
            self.pump(0.1)
            self.picture(f"viewer-{name}-{number + 1}", view.window)
        view.window.destroy()

    def templates(self):
        """The viewer of templates, with its choice of structures."""
        viewer = self.viewer(self.runs["ProtCryolikeGenerateTemplates"])
        (view,) = viewer._visualize(self.runs["ProtCryolikeGenerateTemplates"])
        view.show()
        self.pump(0.4)
        view.box.current(1)
        view.choose(1)
        view.choose(0)
        self.tabs(view, "templates")

    def particles(self):
        """The viewer of converted particles."""
        viewer = self.viewer(self.runs["ProtCryolikeConvertParticles"])
        viewer.visualize(self.runs["ProtCryolikeConvertParticles"], windows=self.main)
        self.pump()
        self.picture("viewer-particles", viewer.formWindow.root)
        (view,) = self.press(viewer, "overview")
        self.tabs(view, "particles")
        (view,) = self.press(viewer, "particleId")
        view.window.destroy()
        viewer.formWindow.root.destroy()

    def ensemble(self):
        """The viewer of ensemble weights."""
        viewer = self.viewer(self.runs["ProtCryolikeEnsemble"])
        viewer.visualize(self.runs["ProtCryolikeEnsemble"], windows=self.main)
        self.pump()
        (view,) = self.press(viewer, "populations")
        self.tabs(view, "ensemble")
        viewer.formWindow.root.destroy()

    def likelihood(self):
        """The viewer of likelihoods: every button of it."""
        protocol = self.runs["ProtCryolikeLikelihood"]
        viewer = self.viewer(protocol)
        viewer.visualize(protocol, windows=self.main)
        self.pump(0.4)
        self.picture("viewer-likelihood", viewer.formWindow.root)
        for name in ("populations", "classes", "densities", "poses", "agreement"):
            (view,) = self.press(viewer, name)
            self.tabs(view, name)
        (view,) = self.press(viewer, "particleId")
        self.tabs(view, "particle")
        (view,) = self.press(viewer, "landscape")
        self.tabs(view, "landscape")
        for number in range(7):
            viewer.score.set(number)
            (view,) = self.press(viewer, "score")
            if number == 0:
                self.subset(viewer, view)
            view.window.destroy()
        viewer.formWindow.root.destroy()

    def subset(self, viewer, view):
        """Drag the threshold with the mouse, and make the two sets."""
        axis = view._axes[0]
        low, high = axis.get_xlim()
        for kind, share in (("button_press_event", 0.3), ("motion_notify_event", 0.35), ("button_release_event", 0.35)):
            x, y = axis.transData.transform((low + share * (high - low), np.mean(axis.get_ylim())))
            _mouse(view.canvas, kind, x, y)
            self.pump(0.2)
        if abs(view.threshold - (low + 0.35 * (high - low))) > 0.02 * (high - low):
            raise AssertionError(f"the threshold is {view.threshold} after dragging it")
        self.picture("viewer-threshold", view.window)
        launched = []
        viewer.showInfo = lambda text: print("told:", text)
        create = view._create
        view._create = lambda value: launched.append(create(value))
        view.button.invoke()
        select = self.wait(launched[0])
        kept, rejected = select.outputParticles.getSize(), select.outputRejected.getSize()
        total = viewer.protocol.outputParticles.getSize()
        if not (0 < kept < total and kept + rejected == total):
            raise AssertionError(f"{kept} and {rejected} of {total} particles")

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

    def table(self):
        """The output particles in the metadata viewer, with our columns."""
        particles = self.runs["ProtCryolikeLikelihood"].outputParticles
        viewer = self.domain.findViewers(particles, DESKTOP_TKINTER)[0](project=self.project, parent=self.main)
        (view,) = viewer._visualize(particles)
        visible, _, rendered = view.getVisibleAndOrderLabels()
        if "_cryolike_logLikelihood" not in visible.split() or rendered != "_filename":
            raise AssertionError(f"{type(viewer).__name__} shows {visible}")
        before = _windows()
        view.show()
        end = time.time() + 60
        while not _windows() - before and time.time() < end:
            self.pump(0.5)
        self.pump(3)
        opened = sorted(_windows() - before)
        if not opened:
            raise AssertionError("the metadata viewer has not opened a window within a minute")
        subprocess.run(["xdotool", "windowactivate", "--sync", opened[-1]], check=False, timeout=30)
        subprocess.run(["xdotool", "windowsize", "--sync", opened[-1], "1400", "700"], check=False, timeout=30)
        self.pump(2)
        subprocess.run(
            ["import", "-window", opened[-1], os.path.join(self.pictures, "viewer-table.png")], check=True, timeout=60
        )
        subprocess.run(["xdotool", "windowkill", opened[-1]], check=False, timeout=30)


def _windows():
    """Numbers of the visible windows of the metadata viewer."""
    found = subprocess.run(
        ["xdotool", "search", "--onlyvisible", "--name", "Metadata viewer|\\.sqlite"],
        stdout=subprocess.PIPE,
        check=False,
        timeout=30,
    )
    return set(found.stdout.decode().split())


def _mouse(canvas, kind, x, y):
    """Send an event of the mouse at some pixel to a matplotlib canvas."""
    from matplotlib.backend_bases import MouseEvent

    button = None if kind == "motion_notify_event" else 1
    canvas.callbacks.process(kind, MouseEvent(kind, canvas, x, y, button))


def _find(widget, kind):
    """Return the first widget of a class below another."""
    for child in widget.winfo_children():
        if child.winfo_class() == kind:
            return child
        found = _find(child, kind)
        if found is not None:
            return found
    return None


def main():
    """Do everything; return the exit status."""
    driver = Driver(sys.argv[1], sys.argv[2])
    driver.picture("project")
    steps = [
        *((f"form {name}", lambda name=name: driver.look_at_form(name)) for name in sorted(driver.domain.getProtocols())
          if name.startswith("ProtCryolike") and name != "ProtCryolikeBase"),
        ("wizards", driver.wizards),
        ("templates", driver.templates),
        ("particles", driver.particles),
        ("likelihood", driver.likelihood),
        ("ensemble", driver.ensemble),
        ("table", driver.table),
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
