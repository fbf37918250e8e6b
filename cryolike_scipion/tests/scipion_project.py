"""A real Scipion project without a window, for tests: imports, launches, and reading back its files."""

import os
import sqlite3

import pyworkflow
from pwem.protocols import ProtImportParticles, ProtImportPdb, ProtImportVolumes
from pyworkflow.project import Manager
from pyworkflow.protocol import MODE_RESUME
from pyworkflow.viewer import DESKTOP_TKINTER


class ScipionProject:
    """A project of its own, which is the working directory until :meth:`close`."""

    def __init__(self, name):
        self._before = os.getcwd()
        self.domain = pyworkflow.Config.getDomain()
        self.domain.getPlugins()
        self.domain.getProtocols()
        self._project = Manager().createProject(name)
        os.chdir(self._project.path)

    @property
    def path(self):
        """The project's folder."""
        return self._project.path

    def close(self):
        """Go back to the folder from before."""
        self._project.closeMapper()
        os.chdir(self._before)

    def new(self, protocol_class, label=None, **values):
        """Return a new protocol; pointers are given as (protocol, output name) or as lists of them."""
        pointers = {name: value for name, value in values.items() if isinstance(value, (tuple, list))}
        protocol = self._project.newProtocol(
            protocol_class, **{name: value for name, value in values.items() if name not in pointers}
        )
        if label:
            protocol.setObjLabel(label)
        for name, value in pointers.items():
            if isinstance(value, list):
                from pyworkflow.object import Pointer

                getattr(protocol, name).set([Pointer(source, extended=output) for source, output in value])
            else:
                getattr(protocol, name).set(value[0])
                getattr(protocol, name).setExtended(value[1])
        return protocol

    def run(self, protocol, resume=False):
        """Run a protocol to its end, as the GUI does; return it as the project knows it afterwards."""
        if resume:
            protocol.runMode.set(MODE_RESUME)
        self._project.launchProtocol(protocol, wait=True)
        return self._project.getProtocol(protocol.getObjId(), fromRuns=False)

    def finish(self, protocol_class, **values):
        """Make a protocol, run it, and insist that it finishes."""
        protocol = self.run(self.new(protocol_class, **values))
        assert protocol.isFinished(), self.log(protocol)
        return protocol

    def log(self, protocol):
        """Return what a protocol wrote to its standard output and error."""
        text = ""
        for path in protocol.getLogPaths()[:2]:
            if os.path.exists(path):
                with open(path, encoding="utf-8", errors="replace") as stream:
                    text += f"\n==== {path}\n{stream.read()[-6000:]}"
        return text + f"\n{protocol.getErrorMessage()}"

    def relations(self):
        """Return the (creator, parent, child, name) of every relation in the project."""
        with sqlite3.connect(self._project.getDbPath()) as database:
            return database.execute("select parent_id, object_parent_id, object_child_id, name from Relations").fetchall()

    def viewer(self, viewer_class, protocol):
        """Return a viewer of a protocol, without its window."""
        return viewer_class(project=self._project, protocol=protocol)

    def viewers_of(self, target):
        """Return the viewers that Scipion offers for an object."""
        return self.domain.findViewers(target, DESKTOP_TKINTER)

    # ------------------------------------------------------------ imports

    def import_star(self, star, pixel, voltage=300.0, **values):
        """Import particles through scipion-em-relion."""
        return self.finish(
            ProtImportParticles,
            importFrom=ProtImportParticles.IMPORT_FROM_RELION,
            starFile=star,
            voltage=voltage,
            sphericalAberration=2.7,
            amplitudeContrast=0.1,
            samplingRate=pixel,
            magnification=50000,
            **values,
        )

    def import_stack(self, pattern, pixel):
        """Import particles as bare images."""
        return self.finish(
            ProtImportParticles,
            importFrom=ProtImportParticles.IMPORT_FROM_FILES,
            filesPath=os.path.dirname(pattern),
            filesPattern=os.path.basename(pattern),
            voltage=300.0,
            sphericalAberration=2.7,
            amplitudeContrast=0.1,
            samplingRate=pixel,
            magnification=50000,
        )

    def import_set(self, sqlite, pixel):
        """Import particles from a Scipion set."""
        return self.finish(
            ProtImportParticles,
            importFrom=ProtImportParticles.IMPORT_FROM_SCIPION,
            sqliteFile=sqlite,
            voltage=300.0,
            sphericalAberration=2.7,
            amplitudeContrast=0.1,
            samplingRate=pixel,
            magnification=50000,
        )

    def import_volumes(self, pattern, pixel):
        """Import one volume, or a set of them."""
        return self.finish(
            ProtImportVolumes,
            filesPath=os.path.dirname(pattern),
            filesPattern=os.path.basename(pattern),
            samplingRate=pixel,
        )

    def import_atoms(self, path):
        """Import an atomic structure from a file."""
        return self.finish(ProtImportPdb, inputPdbData=ProtImportPdb.IMPORT_FROM_FILES, pdbFile=path)


def columns(sqlite, table=""):
    """Return attribute label to the column of values in a set's sqlite file, in the order of ids.

    Parameters
    ----------
    sqlite : the set's file.
    table : prefix of the tables, such as ``Class001_``.
    """
    with sqlite3.connect(sqlite) as database:
        database.row_factory = sqlite3.Row
        names = {row["label_property"]: row["column_name"] for row in database.execute(f"select * from {table}Classes")}
        rows = database.execute(f"select * from {table}Objects order by id").fetchall()
    found = {label: [row[name] for row in rows] for label, name in names.items() if label != "self"}
    found["id"] = [row["id"] for row in rows]
    found["enabled"] = [bool(row["enabled"]) for row in rows]
    found["label"] = [row["label"] for row in rows]
    return found
