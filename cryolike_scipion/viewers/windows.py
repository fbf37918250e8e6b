"""Windows with matplotlib figures: one, several in tabs, or those of a choice."""

import tkinter as tk
from tkinter import ttk

from matplotlib.backends.backend_tkagg import FigureCanvasTkAgg, NavigationToolbar2Tk
from pyworkflow.viewer import View

_DPI = 100
_BACKGROUND = "white"


class FigureWindow(View):
    """A window whose tabs show figures.

    Parameters
    ----------
    title : text of its frame.
    make : callable
        Gets a choice (None without choices), returns (name of the tab, callable that draws the figure) pairs; a
        figure is drawn when its tab is first looked at.
    choices : list of str, shown as a list above the tabs.
    parent : Tk widget that owns the window, None for a window of its own.
    first : int
        The choice that is shown first, from 0.
    """

    def __init__(self, title, make, choices=(), parent=None, first=0):
        self._first = first
        self.title, self.choices = title, list(choices)
        self._make, self._parent = make, parent
        self.window = self.box = self._book = None
        self.figures = {}

    def tabs(self, choice=None):
        """Return (name, callable that draws the figure) of every tab, of the choice that is shown first if none is given."""
        return self._make(choice if choice is not None or not self.choices else self.choices[self._first])

    def show(self):
        """Open the window."""
        self.window = open_toplevel(self.title, self._parent)
        if len(self.choices) > 1:
            self._addChoice()
        self.choose(self._first)

    def _addChoice(self):
        bar = tk.Frame(self.window, bg=_BACKGROUND)
        bar.pack(side=tk.TOP, fill=tk.X, padx=8, pady=4)
        tk.Label(bar, text="Structure:", bg=_BACKGROUND).pack(side=tk.LEFT)
        self.box = ttk.Combobox(bar, values=self.choices, state="readonly", width=min(60, max(map(len, self.choices)) + 2))
        self.box.bind("<<ComboboxSelected>>", lambda _: self.choose(self.box.current()))
        self.box.pack(side=tk.LEFT, padx=6)

    def choose(self, number):
        """Show the tabs of a choice."""
        at = self._book.index("current") if self._book is not None else 0
        if self._book is not None:
            self._book.destroy()
        if self.box is not None:
            self.box.current(number)
        self.figures = {}
        self._book = ttk.Notebook(self.window)
        self._book.pack(side=tk.TOP, fill=tk.BOTH, expand=True)
        self._pending = {}
        for name, draw in self.tabs(self.choices[number] if self.choices else None):
            frame = tk.Frame(self._book, bg=_BACKGROUND)
            self._book.add(frame, text=name)
            self._pending[str(frame)] = (name, draw, frame)
        self._book.bind("<<NotebookTabChanged>>", lambda _: self._drawCurrent())
        self._book.select(at)
        self._drawCurrent()

    def select(self, number):
        """Look at a tab, from 0."""
        self._book.select(number)
        self._drawCurrent()

    def _drawCurrent(self):
        name, draw, frame = self._pending.pop(self._book.select(), (None, None, None))
        if draw is None:
            return
        figure = draw()
        self.figures[name] = figure
        embed(figure, frame)


def open_toplevel(title, parent):
    """Return a new window of a title; `parent` is None where there is no window yet."""
    if parent is None:
        parent = tk._get_default_root("make a window")
    window = tk.Toplevel(parent, bg=_BACKGROUND)
    window.title(title)
    return window


def embed(figure, frame):
    """Put a figure into a frame with matplotlib's toolbar; return its canvas."""
    figure.set_dpi(_DPI)
    canvas = FigureCanvasTkAgg(figure, master=frame)
    toolbar = NavigationToolbar2Tk(canvas, frame, pack_toolbar=False)
    toolbar.pack(side=tk.BOTTOM, fill=tk.X)
    canvas.get_tk_widget().pack(side=tk.TOP, fill=tk.BOTH, expand=True)
    canvas.draw()
    return canvas


def one_figure(title, draw, parent=None):
    """Return a window with a single figure."""
    return FigureWindow(title, lambda _: [(title, draw)], parent=parent)
