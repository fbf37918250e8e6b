"""A score's distribution with a threshold to drag, how many particles stay, and the subset that follows."""

import tkinter as tk

import numpy as np
from pyworkflow.viewer import View

from ..plots.scores import kept_text, threshold_figure, threshold_lines
from .windows import embed, open_toplevel

_WHITE = "white"


class ThresholdWindow(View):
    """The window.

    Parameters
    ----------
    score : plots.scores.Score
    values : ndarray, float64, [m]
    best : ndarray, int64, [m], structure from 0.
    labels : list of str, of the structures.
    create : callable
        Gets the threshold when the button is pressed; None leaves the button out.
    parent : Tk widget that owns the window, or None.
    button : text of the button.
    """

    def __init__(self, score, values, best, labels, create=None, parent=None, button="Create subset"):
        self.score, self.values, self.best, self.labels = score, values, best, labels
        self._create, self._parent, self._buttonText = create, parent, button
        finite = values[np.isfinite(values)]
        self.threshold = float(np.median(finite)) if finite.size else 0.0
        self._lines, self._dragged = [], False

    def show(self):
        """Open the window."""
        self.window = open_toplevel(f"Select by {self.score.title}", self._parent)
        self.figure, self._axes = threshold_figure(self.score.axis, self.values, self.best, self.labels)
        self._addControls()
        frame = tk.Frame(self.window, bg=_WHITE)
        frame.pack(side=tk.TOP, fill=tk.BOTH, expand=True)
        self.canvas = embed(self.figure, frame)
        # Laid out for the window as it is; to do it with every move of the mouse would make the line lag.
        self.window.update_idletasks()
        self.canvas.draw()
        self.figure.set_layout_engine("none")
        self._lines = threshold_lines(self._axes, self.threshold)
        for event, action in (
            ("button_press_event", self._press),
            ("motion_notify_event", self._move),
            ("button_release_event", self._release),
        ):
            self.canvas.mpl_connect(event, action)
        self.setThreshold(self.threshold)

    def _addControls(self):
        bar = tk.Frame(self.window, bg=_WHITE)
        bar.pack(side=tk.BOTTOM, fill=tk.X, padx=10, pady=8)
        tk.Label(bar, text="Threshold:", bg=_WHITE).grid(row=0, column=0, sticky="w")
        self.entry = tk.Entry(bar, width=12)
        self.entry.grid(row=0, column=1, padx=6)
        self.entry.bind("<Return>", lambda _: self._typed())
        self.entry.bind("<FocusOut>", lambda _: self._typed())
        tk.Label(bar, text=self.score.unit, bg=_WHITE).grid(row=0, column=2, sticky="w")
        self.text = tk.Label(bar, bg=_WHITE, justify=tk.LEFT, anchor="w")
        self.text.grid(row=0, column=3, rowspan=2, padx=20, sticky="w")
        hint = "Drag the dashed line, or type a number."
        tk.Label(bar, text=hint, bg=_WHITE, fg="#5c6b73").grid(row=1, column=0, columnspan=3, sticky="w")
        bar.columnconfigure(3, weight=1)
        if self._create is not None:
            self.button = tk.Button(bar, text=self._buttonText, command=self._pressed, padx=14, pady=4)
            self.button.grid(row=0, column=4, rowspan=2, sticky="e")

    def setThreshold(self, value):
        """Move the line, and say how many particles stay."""
        self.threshold = float(value)
        for line in self._lines:
            line.set_xdata([self.threshold, self.threshold])
        self.entry.delete(0, tk.END)
        self.entry.insert(0, f"{self.threshold:.6g}")
        lines = kept_text(self.values, self.best, self.labels, self.threshold)
        self.text.config(text=lines[0] + "\n" + "   ".join(line.replace(r"\$", "$") for line in lines[1:]))
        self.canvas.draw_idle()

    def _typed(self):
        try:
            value = float(self.entry.get())
        except ValueError:
            value = self.threshold
        if np.isfinite(value):
            self.setThreshold(value)

    def _press(self, event):
        if event.button == 1 and event.inaxes in self._axes and not self.canvas.toolbar.mode:
            self._dragged = True
            self.setThreshold(event.xdata)

    def _move(self, event):
        if self._dragged and event.inaxes in self._axes:
            self.setThreshold(event.xdata)

    def _release(self, _):
        self._dragged = False

    def _pressed(self):
        self._typed()
        self._create(self.threshold)
