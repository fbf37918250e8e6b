"""Which structure does each cryo-EM particle show, at which pose: CryoLike's likelihood for Scipion.

Importing this package is cheap and needs nothing but Python.  ``Plugin`` exists where pyworkflow does, that
is in Scipion; the engine's own environment and a facility's command line do without it.
"""

__version__ = "0.1.0"
_logo = "logo.png"
_references = ["CryoLike2025", "Rangan2020", "Cossio2013", "Barnett2019"]


def __getattr__(name):
    """Make ``Plugin`` when it is first asked for, so that the engine never loads Scipion."""
    if name != "Plugin":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        import pwem  # noqa: F401
    except ModuleNotFoundError as error:
        raise AttributeError(f"module {__name__!r} has no Plugin, because Scipion is not here: {error}") from None
    from .plugin import Plugin

    globals()["Plugin"] = Plugin
    return Plugin
