"""What several test files need: the development data, and programs that may be missing."""

import os
import shutil
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
REQUIRE_ALL = "CRYOLIKE_REQUIRE_ALL"  # set to anything in the environment: conftest.py makes a failure of every skip


def shared_data(name):
    """Return a folder of the development data, or skip the test where the data are not there.

    They lie in ``../shared/data`` beside the checkout, or where CRYOLIKE_SHARED_DATA says.
    """
    root = Path(os.environ.get("CRYOLIKE_SHARED_DATA", REPOSITORY.parent / "shared" / "data"))
    if not (root / name).is_dir():
        pytest.skip(f"the development data {root / name} are not here")
    return root / name


def program(*names):
    """Return the path of the first program that is installed; skip without one, which fails with REQUIRE_ALL."""
    for name in names:
        found = shutil.which(name)
        if found:
            return found
    pytest.skip(f"{' or '.join(names)} is not installed")
