"""A project with all nodes run, on simulated particles: for tests of windows, and for the pictures of the documents."""

import os
import subprocess
import sys

SETTINGS = {"maxShift": 12.0, "resolution": 16.0, "numberOfThreads": 1}


def make_project(folder, count, name="cryolike", **changed):
    """Simulate particles of two states and run every node on them.

    Parameters
    ----------
    folder : where the simulated files go.
    count : number of particles.
    name : of the project.
    changed : parameters of the likelihood node that differ from SETTINGS.

    Returns
    -------
    str
        The project's folder.
    """
    from cryolike_scipion.protocols import (
        ProtCryolikeConvertParticles,
        ProtCryolikeEnsemble,
        ProtCryolikeGenerateTemplates,
        ProtCryolikeLikelihood,
    )

    from .scipion_project import ScipionProject

    settings = dict(SETTINGS, **changed)
    data = os.path.join(str(folder), "simulated")
    sizes = ["--count", str(count), "--snr", "0.1", "--box", "48", "--pixel", "4"]
    subprocess.run([sys.executable, "-m", "cryolike_scipion", "simulate", *sizes, "--out", data], check=True)
    project = ScipionProject(name)
    try:
        particles = project.import_star(os.path.join(data, "truth.star"), 4.0, objLabel="import particles")
        states = [project.import_atoms(os.path.join(data, f"state_{number}.cif")) for number in (1, 2)]
        templates = project.finish(
            ProtCryolikeGenerateTemplates,
            inputParticles=(particles, "outputParticles"),
            inputStructures=[(state, "outputPdb") for state in states],
            preview=60,
            resolution=settings["resolution"],
            numberOfThreads=1,
        )
        converted = project.finish(
            ProtCryolikeConvertParticles, inputParticles=(particles, "outputParticles"), maskDiameter=150.0, numberOfThreads=1
        )
        likelihood = project.finish(
            ProtCryolikeLikelihood,
            inputParticles=(converted, "outputParticles"),
            inputTemplates=(templates, "outputTemplates"),
            **settings,
        )
        # A pointer to the run itself, not to an output.
        ensemble = project.new(ProtCryolikeEnsemble, bootstrap=50, numberOfThreads=1)
        ensemble.inputRun.set(likelihood)
        ensemble = project.run(ensemble)
        assert ensemble.isFinished(), project.log(ensemble)
        return project.path
    finally:
        project.close()
