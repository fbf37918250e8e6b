"""A window to choose a number with a slider, or by typing it, while a picture follows."""

import tkinter as tk

from ..viewers.windows import embed, open_toplevel

_WHITE = "white"


class ValueWindow:
    """The window; it is modal, and `accept` gets the value when *Select* is pressed.

    Parameters
    ----------
    parent : Tk widget that owns the window.
    title : text of its frame.
    name, unit : of the value.
    bounds : (smallest, largest) value.
    value : first value.
    figure : Figure that shows what the value does.
    follow : callable, gets a new value and changes the figure.
    accept : callable, gets the value that was chosen.
    note : text below the slider.
    extra : (text, callable) of a further button, or None.
    """

    def __init__(self, parent, title, name, unit, bounds, value, figure, follow, accept, note="", extra=None):
        self._follow, self._accept, self._bounds = follow, accept, bounds
        self.window = open_toplevel(title, parent)
        self._addControls(name, unit, note, extra)
        frame = tk.Frame(self.window, bg=_WHITE)
        frame.pack(side=tk.TOP, fill=tk.BOTH, expand=True)
        self.canvas = embed(figure, frame)
        self.window.update_idletasks()
        self.canvas.draw()
        figure.set_layout_engine("none")  # laid out for the window as it is; to do it at every step would be slow
        self.set(value)
        self.window.transient(parent)
        self.window.wait_visibility()
        self.window.grab_set()

    def _addControls(self, name, unit, note, extra):
        bar = tk.Frame(self.window, bg=_WHITE)
        bar.pack(side=tk.BOTTOM, fill=tk.X, padx=10, pady=8)
        tk.Label(bar, text=f"{name} ({unit}):", bg=_WHITE).grid(row=0, column=0, sticky="w")
        self.entry = tk.Entry(bar, width=9)
        self.entry.grid(row=0, column=1, padx=6)
        self.entry.bind("<Return>", lambda _: self._typed())
        self.entry.bind("<FocusOut>", lambda _: self._typed())
        low, high = self._bounds
        self.slider = tk.Scale(
            bar, from_=low, to=high, resolution=(high - low) / 500, orient=tk.HORIZONTAL, showvalue=False, bg=_WHITE,
            highlightthickness=0, command=self._slid,
        )  # fmt: skip
        self.slider.grid(row=0, column=2, sticky="ew", padx=6)
        bar.columnconfigure(2, weight=1)
        tk.Label(bar, text=note, bg=_WHITE, fg="#5c6b73", justify=tk.LEFT).grid(row=1, column=0, columnspan=3, sticky="w")
        column = 3
        if extra is not None:
            tk.Button(bar, text=extra[0], command=extra[1]).grid(row=0, column=column, padx=4)
            column += 1
        self.ok = tk.Button(bar, text="Select", command=self._selected)
        self.ok.grid(row=0, column=column, padx=4)
        tk.Button(bar, text="Cancel", command=self.window.destroy).grid(row=0, column=column + 1, padx=4)

    def set(self, value):
        """Show what a value does."""
        self.value = min(max(float(value), self._bounds[0]), self._bounds[1])
        self.entry.delete(0, tk.END)
        self.entry.insert(0, f"{self.value:.4g}")
        self.slider.set(self.value)
        self._follow(self.value)
        self.canvas.draw_idle()

    def _slid(self, text):
        # The slider also calls when it is set here, to the nearest of its own steps.
        if abs(float(text) - self.value) > (self._bounds[1] - self._bounds[0]) / 400:
            self.set(float(text))

    def _typed(self):
        try:
            self.set(float(self.entry.get()))
        except ValueError:
            self.set(self.value)

    def _selected(self):
        self._typed()
        self.window.destroy()
        self._accept(float(f"{self.value:.4g}"))
