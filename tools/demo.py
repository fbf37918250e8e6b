"""The whole way in a real Scipion project without a window: import, templates, convert particles, likelihood.

Without ``--data`` a made-up protein in two states is simulated.  With it, a folder or a STAR file with
particles and structures beside it is used.  At the end the answer is compared with the known truth, where
there is one.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from demo_check import DemoData, compare, find_data, read_scipion_answer  # noqa: E402
from demo_picture import draw  # noqa: E402

MARKER = ".cryolike-demo"
HOSTS = "[localhost]\nPARALLEL_COMMAND = mpirun -np %_(JOB_NODES)d %_(COMMAND)s\n"


def main():
    """Run the demo; return the exit status."""
    options = _options()
    started = time.monotonic()
    out = _empty_folder(Path(options.out).resolve())
    data = find_data(Path(options.data), options.structures) if options.data else _simulate(out / "simulated", options)
    print(
        f"\n{len(data.particles)} particles of {data.particles.optics[0].box} pixels, "
        f"{len(data.structures)} structures: {', '.join(path.name for path in data.structures)}\n"
    )
    project, likelihood = _run_workflow(data, out, options)
    result = Path(project.path) / likelihood._getExtraPath("result")
    picture = out / "result.png"
    draw(result, data, picture)
    print("\n" + compare(data, read_scipion_answer(likelihood.outputParticles), options.symmetry))
    print(
        f"\nScipion project   {project.path}\nSTAR file         {result / 'particles.star'}\n"
        f"report            {result / 'report.html'}\npicture           {picture}\n"
        f"time              {time.monotonic() - started:.0f} s"
    )
    return 0


def _options():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="demo_output", help="folder for everything; an earlier demo in it is replaced")
    parser.add_argument("--data", help="a folder or STAR file with your own particles, structures beside it")
    parser.add_argument("--structures", nargs="+", help="structures, where they are not beside the particles")
    parser.add_argument("--symmetry", default="C1", help="point group of the structures")
    parser.add_argument("--invert", action="store_true", help="particles are dark on a bright background")
    parser.add_argument("--count", type=int, default=120, help="number of simulated particles")
    parser.add_argument("--search", choices=("exhaustive", "local", "fixed"), default="exhaustive")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    return parser.parse_args()


def _empty_folder(folder):
    """Make the output folder; what an earlier demo left there goes, and nothing else."""
    if folder.exists() and not (folder / MARKER).exists() and any(folder.iterdir()):
        raise SystemExit(f"{folder} holds something else than a demo; give another folder with --out (DEMO_OUT=…).")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / MARKER).touch()
    return folder


def _simulate(folder, options):
    print("Simulating particles of a made-up protein in two states …", flush=True)
    settings = f"--count {options.count} --box 32 --pixel 6 --snr 0.15 --threads {options.threads}"
    command = [sys.executable, "-m", "cryolike_scipion", "simulate", *settings.split(), "--out", str(folder)]
    subprocess.run(command, check=True, cwd=ROOT)
    return DemoData.of(folder / "particles.star", sorted(folder.glob("state_*.cif")), folder / "truth.star")


# ---------------------------------------------------------------- Scipion


def _run_workflow(data, out, options):
    manager = _scipion(out / "scipion")
    from pwem.protocols import ProtImportParticles

    project = manager.createProject("cryolike_demo")
    os.chdir(project.path)
    run = _Runner(project, options.threads)
    optics = data.particles.optics[0]
    particles = run(
        "import particles",
        ProtImportParticles,
        importFrom=ProtImportParticles.IMPORT_FROM_RELION,
        starFile=str(data.star),
        samplingRate=optics.pixel_size,
        voltage=optics.voltage_kv,
        sphericalAberration=optics.cs_mm,
        amplitudeContrast=optics.amplitude_contrast,
    )
    structures = [_import_structure(run, path) for path in data.structures]
    from cryolike_scipion.protocols import (
        ProtCryolikeConvertParticles,
        ProtCryolikeGenerateTemplates,
        ProtCryolikeLikelihood,
    )

    templates = run(
        "generate templates",
        ProtCryolikeGenerateTemplates,
        inputStructures=structures,
        inputParticles=(particles, "outputParticles"),
        symmetry=options.symmetry,
    )
    converted = run(
        "convert particles",
        ProtCryolikeConvertParticles,
        inputParticles=(particles, "outputParticles"),
        invert=options.invert,
    )
    likelihood = run(
        "likelihood",
        ProtCryolikeLikelihood,
        inputParticles=(converted, "outputParticles"),
        inputTemplates=(templates, "outputTemplates"),
        invert=options.invert,
        search=("exhaustive", "local", "fixed").index(options.search),
    )
    return project, likelihood


def _scipion(home):
    """Set up a Scipion of the demo's own and return its project manager."""
    home.mkdir()
    hosts = home / "hosts.conf"
    hosts.write_text(HOSTS)
    os.environ.update(
        SCIPION_DOMAIN="pwem",
        SCIPION_HOME=str(home),
        SCIPION_USER_DATA=str(home),
        SCIPION_HOSTS=str(hosts),
        SCIPION_PYTHON=sys.executable,
        SCIPION_NOTIFY="False",
        SCIPION_TEST_NOSYNC="True",
        MPLBACKEND="Agg",
    )
    import pyworkflow
    from pyworkflow.project import Manager

    domain = pyworkflow.Config.getDomain()
    domain.getPlugins()
    domain.getProtocols()
    return Manager()


def _import_structure(run, path):
    from pwem.protocols import ProtImportPdb, ProtImportVolumes

    if path.suffix in (".pdb", ".cif"):
        protocol = run(
            f"import {path.name}",
            ProtImportPdb,
            inputPdbData=ProtImportPdb.IMPORT_FROM_FILES,
            pdbFile=str(path),
        )
        return protocol, "outputPdb"
    import mrcfile

    with mrcfile.open(path, header_only=True) as mrc:
        pixel = float(mrc.voxel_size.x)
    protocol = run(
        f"import {path.name}",
        ProtImportVolumes,
        filesPath=str(path.parent),
        filesPattern=path.name,
        samplingRate=pixel,
    )
    return protocol, "outputVolume"


class _Runner:
    """Launch protocols one after the other and show the engine's progress."""

    def __init__(self, project, threads):
        self._project, self._threads = project, threads

    def __call__(self, label, protocol_class, **values):
        from pyworkflow.object import Pointer

        pointers = {name: value for name, value in values.items() if isinstance(value, (tuple, list))}
        protocol = self._project.newProtocol(
            protocol_class, **{name: value for name, value in values.items() if name not in pointers}
        )
        protocol.setObjLabel(label)
        for name, value in pointers.items():
            if isinstance(value, list):
                getattr(protocol, name).set([Pointer(source, extended=output) for source, output in value])
            else:
                getattr(protocol, name).set(value[0])
                getattr(protocol, name).setExtended(value[1])
        if protocol_class.__module__.startswith("cryolike"):
            threads = protocol.binThreads if hasattr(protocol, "binThreads") else protocol.numberOfThreads
            threads.set(self._threads)
        started = time.monotonic()
        print(f"{label} …", flush=True)
        self._project.launchProtocol(protocol, wait=False)
        seen = 0
        try:
            while protocol.isActive():
                time.sleep(0.3)
                self._project._updateProtocol(protocol)
                seen = self._show(protocol, seen)
        except KeyboardInterrupt:
            self._project.stopProtocol(protocol)
            raise SystemExit(f"{label}: stopped") from None
        self._show(protocol, seen)
        protocol = self._project.getProtocol(protocol.getObjId(), fromRuns=False)
        if not protocol.isFinished():
            log = Path(protocol.getLogPaths()[1])
            tail = log.read_text(errors="replace")[-2000:] if log.exists() else ""
            raise SystemExit(f"{label} failed: {protocol.getErrorMessage()}\n{tail}")
        print(f"{label}: done in {time.monotonic() - started:.0f} s", flush=True)
        return protocol

    def _show(self, protocol, seen):
        """Print the engine's progress lines that are new."""
        log = Path(self._project.path, protocol._getExtraPath("result", "log.txt"))
        lines = log.read_text(errors="replace").splitlines() if log.exists() else []
        for line in lines[seen:]:
            if "% (" in line:
                print("   ", line.split(" INFO ")[-1], flush=True)
        return len(lines)


if __name__ == "__main__":
    sys.exit(main())
