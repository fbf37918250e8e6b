"""The viewers of every node, each button of them, as the driver presses them."""

import os
import subprocess
import time
import webbrowser

import numpy as np
from pyworkflow.viewer import DESKTOP_TKINTER

from cryolike_scipion.plots.scores import SCORES
from cryolike_scipion.viewers.viewer_table import CryolikeMDView


def templates(driver):
    """The viewer of templates, with its choice of structures."""
    viewer = driver.viewer(driver.runs["ProtCryolikeGenerateTemplates"])
    (view,) = viewer._visualize(driver.runs["ProtCryolikeGenerateTemplates"])
    view.show()
    driver.pump(0.4)
    view.box.current(1)
    view.choose(1)
    view.choose(0)
    driver.tabs(view, "templates")


def particles(driver):
    """The viewer of converted particles."""
    viewer = driver.viewer(driver.runs["ProtCryolikeConvertParticles"])
    viewer.visualize(driver.runs["ProtCryolikeConvertParticles"], windows=driver.main)
    driver.pump()
    driver.picture("viewer-particles", viewer.formWindow.root)
    (view,) = driver.press(viewer, "overview")
    driver.tabs(view, "particles")
    (view,) = driver.press(viewer, "particleId")
    view.window.destroy()
    driver.all_pressed(viewer)
    viewer.formWindow.root.destroy()


def ensemble(driver):
    """The viewer of ensemble weights."""
    viewer = driver.viewer(driver.runs["ProtCryolikeEnsemble"])
    viewer.visualize(driver.runs["ProtCryolikeEnsemble"], windows=driver.main)
    driver.pump()
    (view,) = driver.press(viewer, "populations")
    driver.tabs(view, "ensemble")
    page(driver, viewer)
    driver.all_pressed(viewer)
    viewer.formWindow.root.destroy()


def likelihood(driver):
    """The viewer of likelihoods: every button of it."""
    protocol = driver.runs["ProtCryolikeLikelihood"]
    viewer = driver.viewer(protocol)
    viewer.visualize(protocol, windows=driver.main)
    driver.pump(0.4)
    driver.picture("viewer-likelihood", viewer.formWindow.root)
    for name in ("populations", "classes", "densities", "poses", "agreement"):
        (view,) = driver.press(viewer, name)
        driver.tabs(view, name)
    (view,) = driver.press(viewer, "particleId")
    driver.tabs(view, "particle")
    (view,) = driver.press(viewer, "landscape")
    driver.tabs(view, "landscape")
    for number in range(len(SCORES)):
        viewer.score.set(number)
        (view,) = driver.press(viewer, "score")
        if number == 0:
            subset(driver, viewer, view)
        view.window.destroy()
    (view,) = driver.press(viewer, "table", show=False)  # :func:`table` shows the same
    if not isinstance(view, CryolikeMDView):
        raise AssertionError(f"the table is {view}")
    page(driver, viewer)
    driver.all_pressed(viewer)
    viewer.formWindow.root.destroy()


def page(driver, viewer):
    """The button for the report gives a browser a page that is there."""
    opened, before = [], webbrowser.open_new_tab
    webbrowser.open_new_tab = opened.append
    try:
        driver.press(viewer, "report")
    finally:
        webbrowser.open_new_tab = before
    with open(opened[0][len("file://") :], encoding="utf-8") as stream:
        if "</html>" not in stream.read():
            raise AssertionError(f"{opened[0]} is no page")


def subset(driver, viewer, view):
    """Drag the threshold with the mouse, and make the two sets."""
    axis = view._axes[0]
    low, high = axis.get_xlim()
    for kind, share in (("button_press_event", 0.3), ("motion_notify_event", 0.35), ("button_release_event", 0.35)):
        x, y = axis.transData.transform((low + share * (high - low), np.mean(axis.get_ylim())))
        _mouse(view.canvas, kind, x, y)
        driver.pump(0.2)
    if abs(view.threshold - (low + 0.35 * (high - low))) > 0.02 * (high - low):
        raise AssertionError(f"the threshold is {view.threshold} after dragging it")
    driver.picture("viewer-threshold", view.window)
    launched = []
    viewer.showInfo = lambda text: print("told:", text)
    create = view._create
    view._create = lambda value: launched.append(create(value))
    view.button.invoke()
    select = driver.wait(launched[0])
    kept, rejected = select.outputParticles.getSize(), select.outputRejected.getSize()
    total = viewer.protocol.outputParticles.getSize()
    if not (0 < kept < total and kept + rejected == total):
        raise AssertionError(f"{kept} and {rejected} of {total} particles")


def table(driver):
    """The output particles in the metadata viewer, with our columns."""
    particles = driver.runs["ProtCryolikeLikelihood"].outputParticles
    viewer = driver.domain.findViewers(particles, DESKTOP_TKINTER)[0](project=driver.project, parent=driver.main)
    (view,) = viewer._visualize(particles)
    visible, _, rendered = view.getVisibleAndOrderLabels()
    if "_cryolike_logLikelihood" not in visible.split() or rendered != "_filename":
        raise AssertionError(f"{type(viewer).__name__} shows {visible}")
    before = _windows()
    view.show()
    end = time.time() + 60
    while not _windows() - before and time.time() < end:
        driver.pump(0.5)
    driver.pump(3)
    opened = sorted(_windows() - before)
    if not opened:
        raise AssertionError("the metadata viewer has not opened a window within a minute")
    subprocess.run(["xdotool", "windowactivate", "--sync", opened[-1]], check=False, timeout=30)
    subprocess.run(["xdotool", "windowsize", "--sync", opened[-1], "1400", "700"], check=False, timeout=30)
    driver.pump(2)
    subprocess.run(["import", "-window", opened[-1], os.path.join(driver.pictures, "viewer-table.png")], check=True, timeout=60)
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


VIEWERS = (templates, particles, likelihood, ensemble, table)
