"""Every plot of the plugin, as matplotlib figures that open no window and share no global state.

The report of the engine and Scipion's viewers draw with the same functions.  numpy and matplotlib only, and
Python 3.8, because both halves import this.
"""
