"""What the likelihood node found: scores, structures, poses, single particles, tables."""

import os
import webbrowser

from pyworkflow.protocol.params import EnumParam, IntParam
from pyworkflow.viewer import DESKTOP_TKINTER, ProtocolViewer

from .. import Plugin
from ..constants import OUTPUT_REPORT, OUTPUT_SCORES, OUTPUT_STAR, RESULT_FOLDER
from ..convert.inspection import is_fresh, read_inspection
from ..convert.run_scores import ANGLE, SHIFT, RunScores
from ..plots import classes, one_particle, poses, scores, structures, volumes
from ..plots.style import empty
from ..protocols import ProtCryolikeLikelihood, ProtCryolikeSelect
from .buttons import add_buttons
from .densities import read_density
from .threshold_window import ThresholdWindow
from .viewer_table import table_of
from .windows import FigureWindow, one_figure


class CryolikeLikelihoodViewer(ProtocolViewer):
    """Everything a likelihood run has to show."""

    _label = "viewer of likelihoods"
    _targets = [ProtCryolikeLikelihood]
    _environments = [DESKTOP_TKINTER]

    # -------------------------- form --------------------------

    def _defineParams(self, form):
        form.addSection(label="Results")
        group = form.addGroup("Scores")
        group.addParam(
            "score",
            EnumParam,
            choices=[score.title for score in scores.SCORES],
            default=0,
            label="Distribution and threshold",
            help="Histogram and cumulative curves of each structure's particles. Drag the line to see how many particles "
            "stay; the button makes them, and the others, new sets.\n\n"
            + "\n".join(f"*{score.axis}*: {score.meaning}" for score in scores.SCORES),
        )
        add_buttons(
            form.addGroup("Structures"),
            ("populations", "Shares, posteriors, differences", "Share of each structure with its uncertainty, how many "
             "particles are decided, log-likelihood differences of pairs, and the structure × particle matrix."),
            ("classes", "Averages and best members", "Of each structure, the average of the particles in its most frequent "
             "view, and those of highest log-likelihood, with their projections."),
            ("densities", "Densities", "Central slices and projections of what the particles were compared with."),
        )  # fmt: skip
        add_buttons(
            form.addGroup("Poses"),
            ("poses", "Views, in-plane angles, shifts", "Where the best poses lie, and how much the images say about them."),
            ("agreement", "Agreement with the input poses", "Difference in angle and shift from the poses that the particles "
             "came with, if any."),
        )  # fmt: skip
        group = form.addGroup("One particle")
        particles = getattr(self.protocol, "outputParticles", None)
        group.addParam(
            "particleId",
            IntParam,
            default=particles.getFirstItem().getObjId() if particles else 1,
            label="Particle and its templates",
            help="Id of a particle of the output. It is shown beside the best template of each structure, "
            "with its CTF and at its best pose, and the residual of the two.",
        )
        add_buttons(
            group,
            ("landscape", "Its score landscape", "The best score at every view, and for every shift and in-plane angle, under "
             "each structure. The engine computes them afresh, which can take a minute."),
        )  # fmt: skip
        add_buttons(
            form.addGroup("Tables and report"),
            ("table", "Particles with their scores", "The metadata viewer with our columns."),
            ("report", "Report in the browser", "All plots on one page."),
        )

    def _getVisualizeDict(self):
        return {
            "score": self._showScore,
            "populations": self._showPopulations,
            "classes": self._showClasses,
            "densities": self._showDensities,
            "poses": self._showPoses,
            "agreement": self._showAgreement,
            "particleId": self._showParticle,
            "landscape": self._showLandscape,
            "table": self._showTable,
            "report": self._showReport,
        }

    def _validate(self):
        if not os.path.exists(self._path(OUTPUT_SCORES)):
            return ["There are no scores yet. Wait until the node has finished its first particles."]
        return []

    # -------------------------- scores --------------------------

    def _showScore(self, paramName=None):
        score = scores.SCORES[self.score.get()]
        run = self._scores()
        best = run.best[run.scored]
        create = self._createSubset if hasattr(self.protocol, "outputParticles") else None
        return [ThresholdWindow(score, run.of_best(score.name), best, run.labels, create, self._tkRoot)]

    def _createSubset(self, threshold):
        """Start the node that makes the two halves."""
        project = self.getProject()
        select = project.newProtocol(ProtCryolikeSelect, score=self.score.get(), threshold=threshold)
        select.inputParticles.set(self.protocol)
        select.inputParticles.setExtended("outputParticles")
        select.setObjLabel(f"{scores.SCORES[self.score.get()].title} from {threshold:.4g}")
        project.launchProtocol(select)
        if self.formWindow is not None:
            self.showInfo(f"The node '{select.getObjLabel()}' makes two sets: the particles that stay, and the others.")
        return select

    # -------------------------- structures --------------------------

    def _showPopulations(self, paramName=None):
        run = self._scores()
        best, scored = run.best[run.scored], run.scored
        if len(run.labels) < 2:
            return [one_figure("Structures", lambda: empty("There is one structure only: nothing to compare."), self._tkRoot)]

        def make(_):
            posterior, integrated = run.matrix("structure_posterior")[:, scored], run.matrix("integrated")[:, scored]
            return [
                ("Shares", lambda: structures.populations(posterior, run.labels)),
                ("Posteriors", lambda: structures.posterior_histogram(run.of_best("structure_posterior"))),
                ("Differences", lambda: structures.log_odds(integrated, run.labels)),
                ("Matrix", lambda: structures.likelihood_matrix(integrated, best, run.labels)),
            ]

        return [FigureWindow("Structures", make, parent=self._tkRoot)]

    def _showClasses(self, paramName=None):
        run = self._scores()
        gallery = run.gallery()
        if gallery is None:
            return [self.errorMessage("This run has no pictures of its particles: they come with its last step.", "Classes")]
        shown = [run.labels[number - 1] for number in gallery["shown"]]
        return [one_figure("Averages and best members", lambda: classes.members(gallery, shown), self._tkRoot)]

    def _showDensities(self, paramName=None):
        labels = self._scores().labels

        def make(label):
            number = labels.index(label) + 1
            density, pixel = read_density(self._path(os.path.join("structures", f"{number:03d}.mrc")))
            return [("Slices and projections", lambda: volumes.slices_and_projections(density, label, pixel))]

        return [FigureWindow("Densities", make, labels, self._tkRoot)]

    # -------------------------- poses --------------------------

    def _showPoses(self, paramName=None):
        run = self._scores()
        best = run.best[run.scored]
        entropy = next(score for score in scores.SCORES if score.name == "pose_entropy")

        def make(_):
            of = run.of_best
            return [
                ("Views", lambda: poses.view_distribution(of("rot"), of("tilt"), best, run.labels)),
                ("In-plane", lambda: poses.inplane_distribution(of("psi"), best, run.labels)),
                ("Shifts", lambda: poses.shift_distribution(of("origin_x"), of("origin_y"))),
                ("Information", lambda: scores.score_histogram(entropy.axis, of("pose_entropy"), best, run.labels)),
            ]

        return [FigureWindow("Poses", make, parent=self._tkRoot)]

    def _showAgreement(self, paramName=None):
        run = self._scores()
        angle, shift = run.extra(ANGLE), run.extra(SHIFT)
        best = run.best[run.scored]

        def draw():
            if angle is None:
                return empty("The particles came without poses.")
            return poses.agreement(angle, shift, best, run.labels)

        return [one_figure("Agreement with the input poses", draw, self._tkRoot)]

    # -------------------------- one particle --------------------------

    def _showParticle(self, paramName=None):
        found, problem = self._inspect(landscape=False)
        if problem:
            return [problem]
        title = f"Particle {self.particleId.get()}"

        def draw():
            scores_of = found.cc, found.log_likelihood, found.posterior
            return one_particle.comparison(found.image, found.templates, found.residual, found.labels, *scores_of, title)

        return [one_figure(title, draw, self._tkRoot)]

    def _showLandscape(self, paramName=None):
        found, problem = self._inspect(landscape=True)
        if problem:
            return [problem]

        def make(label):
            land = found.landscapes[found.labels.index(label)]
            return [
                ("Views", lambda: one_particle.view_landscape(land.rot, land.tilt, land.by_view, label)),
                ("Shifts × rotation", lambda: one_particle.shift_landscape(land.shifts, land.inplane, land.by_shift, label)),
            ]

        title, best = f"Score landscape of particle {self.particleId.get()}", int(found.posterior.argmax())
        return [FigureWindow(title, make, found.labels, self._tkRoot, best)]

    def _inspect(self, landscape):
        """Return what the engine says about the particle, and an error message or None; its file is kept."""
        item = self.particleId.get()
        star = self._path(OUTPUT_STAR)
        folder = self.protocol._getExtraPath("inspect")
        path = os.path.join(folder, f"{'landscape' if landscape else 'particle'}_{item}.npz")
        try:
            if not is_fresh(path, star):
                os.makedirs(folder, exist_ok=True)
                row = self._scores().row_of_item(item)
                arguments = ["inspect", self._path(""), "--row", row, "--device", "cpu", "--out", path]
                with self._busy():
                    Plugin.callEngine(arguments + ["--landscape"] * landscape)
            return read_inspection(path), None
        except (KeyError, RuntimeError) as error:
            return None, self.errorMessage(str(error.args[0]), f"Particle {item}")

    # -------------------------- tables --------------------------

    def _showTable(self, paramName=None):
        particles = getattr(self.protocol, "outputParticles", None)
        if particles is None:
            return [self.errorMessage("The node has no output particles yet.", "Particles")]
        return [table_of(particles, self.protocol, self.getProject())]

    def _showReport(self, paramName=None):
        path = os.path.abspath(self._path(OUTPUT_REPORT))
        if not os.path.exists(path):
            return [self.errorMessage("The report is not written yet.", "Report")]
        webbrowser.open_new_tab("file://" + path)
        return []

    # -------------------------- helpers --------------------------

    def _path(self, name):
        return self.protocol._getExtraPath(RESULT_FOLDER, name)

    def _scores(self):
        """Return the run's scores; read again when the run has gone on."""
        made = os.stat(self._path(OUTPUT_SCORES)).st_mtime_ns
        if getattr(self, "_read", None) is None or self._read[0] != made:
            object.__setattr__(self, "_read", (made, RunScores(self._path(""))))
        return self._read[1]

    def _busy(self):
        return BusyCursor(self._tkRoot)


class BusyCursor:
    """Shows that the program works, as long as the ``with`` lasts."""

    def __init__(self, root):
        self._root = root

    def __enter__(self):
        self._set("watch")

    def __exit__(self, *_):
        self._set("")

    def _set(self, cursor):
        if self._root is not None:
            self._root.config(cursor=cursor)
            self._root.update_idletasks()
