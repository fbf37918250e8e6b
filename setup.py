"""Packaging of scipion-em-cryolike.  Tool settings are in pyproject.toml."""

import ast
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).resolve().parent
MODULE = "cryolike_scipion"


def constant(file_name, name):
    """Return a literal that a file of the module assigns to `name`, without importing the module."""
    tree = ast.parse((HERE / MODULE / file_name).read_text(encoding="utf-8"))
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        if isinstance(node, ast.AnnAssign):
            targets = [node.target]
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            return ast.literal_eval(node.value)
    raise KeyError(f"{file_name} does not assign {name}")


setup(
    name="scipion-em-cryolike",
    version=constant("__init__.py", "__version__"),
    description="Which structure does each cryo-EM particle show? CryoLike likelihoods and poses in Scipion",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="GPL-3.0-or-later",
    python_requires=">=3.8",
    packages=find_packages(include=[MODULE, MODULE + ".*"]),
    package_data={MODULE: ["*.png", "*.conf", "templates/*.template", "templates/*.conf"]},
    install_requires=[
        "scipion-pyworkflow>=3.11",
        "scipion-em>=3.11",
        "numpy",
        "h5py",
        "mrcfile",
        "matplotlib",
        "tifffile",
        "biopython",
    ],
    extras_require={"engine": list(constant("constants.py", "ENGINE_REQUIREMENTS"))},
    entry_points={
        "pyworkflow.plugin": ["cryolike_scipion = cryolike_scipion"],
        "console_scripts": ["cryolike-scipion = cryolike_scipion.cli:main"],
    },
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Intended Audience :: Science/Research",
        "License :: OSI Approved :: GNU General Public License v3 or later (GPLv3+)",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Bio-Informatics",
    ],
    keywords="scipion cryo-em likelihood pose heterogeneity",
)
