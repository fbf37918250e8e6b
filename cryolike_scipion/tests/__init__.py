"""Tests of the engine and of the Scipion half, for pytest, and the same ones for ``scipion tests``.

``scipion tests --grep cryolike`` lists a class for each file, such as ``cryolike_scipion.tests.TestScipionForms``.
"""


def __getattr__(name):
    """Make the class of a file of tests when it is asked for, so that pytest does not find its tests twice."""
    if not name.startswith("Test"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import scipion_tests

    for path in scipion_tests.test_files():
        if scipion_tests.class_name(path) == name:
            globals()[name] = scipion_tests.class_of(path, __name__)
            return globals()[name]
    raise AttributeError(f"there is no file of tests for {name}")


def load_tests(loader, _, pattern):
    """Give unittest, and with it ``scipion tests``, all tests of pytest."""
    import sys
    import unittest

    from . import scipion_tests

    here = sys.modules[__name__]
    names = [scipion_tests.class_name(path) for path in scipion_tests.test_files()]
    return unittest.TestSuite(loader.loadTestsFromTestCase(getattr(here, name)) for name in names)
