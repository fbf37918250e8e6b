"""Names, defaults, units and help texts of every verb: the one place where they are written.

The command line, the Scipion forms, ``job.json`` and the Python API are all built from :data:`VERBS`.
Standard library only and Python 3.8, because Scipion's own Python imports this file too.

A parameter's ``name`` is its key in ``job.json``; on the command line it is ``--name`` with ``_`` written
as ``-``.  A default of ``None`` means that the program finds the value itself; the help text says how.
Paths stay text, and relative ones are relative to the folder in which the program was started.
"""

import difflib
from dataclasses import replace
from typing import Any, Dict, List, Mapping

from .parameter import KINDS, Parameter, ParameterError

__all__ = ["KINDS", "SUMMARIES", "VERBS", "Parameter", "ParameterError", "complete", "get"]


def complete(verb: str, given: Mapping[str, Any]) -> Dict[str, Any]:
    """Check the parameters of a verb and fill in the defaults.

    Parameters
    ----------
    verb : one of the keys of :data:`VERBS`.
    given : name to value; ``None`` stands for "not given".

    Returns
    -------
    dict
        Every parameter of the verb, in the order of :data:`VERBS`, in its own type.

    Raises
    ------
    ParameterError
        For an unknown verb or name, a missing or mistyped value, or a value out of range.
    """
    if verb not in VERBS:
        raise ParameterError(f"unknown verb {verb!r}; the verbs are {', '.join(VERBS)}")
    names = [parameter.name for parameter in VERBS[verb]]
    for name in given:
        if name not in names:
            near = difflib.get_close_matches(str(name), names, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ParameterError(f"{verb}: unknown parameter {name!r}{hint}")
    completed = {}
    for parameter in VERBS[verb]:
        try:
            completed[parameter.name] = parameter.check(given.get(parameter.name))
        except ParameterError as error:
            raise ParameterError(f"{verb}: {error}") from None
    return completed


def get(verb: str, name: str) -> Parameter:
    """Return one parameter of a verb.

    Raises
    ------
    KeyError
        If the verb has no such parameter.
    """
    for parameter in VERBS[verb]:
        if parameter.name == name:
            return parameter
    raise KeyError(f"{verb} has no parameter {name}")


# fmt: off
# ---------------------------------------------------------------- shared by several verbs

_OUT = Parameter(
    "out", "path", metavar="DIR", required=True,
    help="Folder for the results. It is made when it is missing; finished work in it is kept.")
_LABELS = Parameter(
    "labels", "strings", metavar="TEXT",
    help="A name for each structure, in their order, for tables and plots. Default: the file names.")
_SYMMETRY = Parameter(
    "symmetry", "strings", default=("C1",), metavar="NAME",
    help="Point group of each structure, one for all or one each, in RELION's names (C1, C4, D2, T, O, I1, "
         "…). A higher symmetry leaves fewer views to search.")
_RESOLUTION = Parameter(
    "resolution", "float", unit="Å", metavar="A", above=0,
    help="Use detail down to this resolution only. A larger value uses less detail: faster, and safer where "
         "structure and particle differ in fine detail. Default: the Nyquist limit (twice the pixel size).")
_ATOMS = (
    Parameter(
        "atom_model", "choice", default="factors", choices=("factors", "gaussian", "sphere"), expert=True,
        help="How an atom becomes density: electron scattering factors, a Gaussian, or a hard sphere. For "
             "atomic structures only; maps are taken as they are."),
    Parameter(
        "atom_radius", "float", unit="Å", metavar="A", above=0, expert=True,
        help="Radius of a Gaussian atom or of a hard sphere. A larger radius makes a smoother density. "
             "Default: by element, or by residue for the residue model."),
    Parameter(
        "residue_model", "bool", default=False, expert=True,
        help="Put one Gaussian or sphere per residue, on its CA atom, in place of one per atom: for coarse "
             "models and predicted traces."),
    Parameter(
        "select", "str", metavar="SEL", expert=True,
        help="Use only these atoms of an atomic structure, in gemmi's selection syntax, such as 'A,B' or "
             "'A/10-200/CA'. Default: all atoms."),
    Parameter(
        "models", "choice", default="ensemble", choices=("ensemble", "first", "together"), expert=True,
        help="Of a file with several models (an NMR or simulation ensemble): ensemble makes each one a structure, first takes "
             "the first alone, together makes all one structure (older files of assemblies hold its copies so)."),
    Parameter(
        "assembly", "str", metavar="NAME", expert=True,
        help="Build this biological assembly, by its name in the file, such as 1. Default: the coordinates as they are."),
    Parameter("no_hydrogens", "bool", default=False, expert=True,
              help="Leave hydrogen atoms out. Default: they are taken where the file has them."),
    Parameter("waters", "bool", default=False, expert=True, help="Take water too. Default: it is left out."),
)
_PARTICLES = Parameter(
    "particles", "paths", metavar="FILE", required=True,
    help="Particles: RELION STAR files (any version), cryoSPARC .cs files (the passthrough file of the same job is found "
         "beside them, or given too), a cryoSPARC result group (.csg), or the folder of a RELION or cryoSPARC job or of "
         "'cryolike-scipion particles'.")
_IMAGES = (
    Parameter(
        "root", "path", metavar="DIR",
        help="Folder to which image names in the particle file are relative: the RELION or cryoSPARC "
             "project. Default: found from the particle file's own place."),
    Parameter(
        "invert", "bool", default=False,
        help="Invert the contrast, for particles that are dark on a bright background. A sign in a .cs file "
             "is respected without it."),
    Parameter(
        "pixel", "float", unit="Å", metavar="A", above=0, expert=True,
        help="Pixel size of the particles, where the data do not say it; an error where they say otherwise. A larger one "
             "says that the same image is of a larger thing."),
    Parameter(
        "amplitude_contrast", "float", unit="fraction", metavar="Q", minimum=0, maximum=1, expert=True,
        help="Amplitude contrast where the data do not say it; an error where they say otherwise. Raised, the CTF gives "
             "more contrast at the lowest resolution."),
    Parameter(
        "background_diameter", "float", unit="Å", metavar="A", above=0, expert=True,
        help="Diameter outside which pixels count as background for the normalisation. A larger one leaves "
             "fewer background pixels. Default: the mask diameter, or else the box."),
    Parameter(
        "no_normalise", "bool", default=False, expert=True,
        help="Keep the grey values as they are, in place of mean 0 and variance 1 in the background."),
)
_MASK_DIAMETER = Parameter(
    "mask_diameter", "float", unit="Å", metavar="A", minimum=0,
    help="Diameter of a soft circular mask on the particles. A larger mask keeps more of the surroundings, "
         "noise included. Default: no mask.")
_STRUCTURE_MASK = Parameter(
    "mask_diameter", "float", unit="Å", metavar="A", minimum=0,
    help="Diameter of a soft circular mask on the particles. A larger mask keeps more of the surroundings, noise "
         "included; 0 is no mask. Default: the structures' diameter, with the range of shifts and what the CTF spreads "
         "at 2.5 µm of defocus on either side; no mask where the box has no room for that. Converted particles keep the mask "
         "of their conversion.")
_BAD_IMAGES = Parameter(
    "bad_images", "choice", default="stop", choices=("stop", "flag"),
    help="What to do with an image that is missing, constant or holds NaN: stop with its file and row, or "
         "keep the row, give it a status and go on.")
_DEVICE = Parameter(
    "device", "str", default="cpu", metavar="NAME",
    help="Where to compute: cpu, auto (a GPU when there is one), cuda, or cuda:N for GPU number N. The GPU runs the "
         "same code and is not tested as thoroughly yet.")
_THREADS = Parameter(
    "threads", "int", unit="threads", metavar="N", minimum=1,
    help="CPU threads. More are faster, up to the number of cores. Default: all that this process may use.")
_COMPUTE = (_DEVICE, _THREADS)
_MEMORY = Parameter(
    "memory", "float", unit="GiB", metavar="GIB", above=0, expert=True,
    help="Bound for the memory in use. More memory allows larger batches. Default: half of what is free at "
         "the first start.")
_SHARED_BY = Parameter(
    "shared_by", "int", default=1, unit="runs", metavar="N", minimum=1, expert=True,
    help="Runs that work on this machine at the same time. Each takes this part of the default bound for the memory: "
         "more runs, less for each.")
_PRECISION = Parameter(
    "precision", "choice", default="single", choices=("single", "double"), expert=True,
    help="Arithmetic of the image and template transforms. Double is slower; sums of likelihoods are always "
         "in double precision.")
_BATCH_IMAGES = Parameter(
    "batch_images", "int", unit="images", metavar="N", minimum=1, expert=True,
    help="Images handled together. More use more memory. Default: found from the memory bound.")
_EXPORTS = (
    Parameter(
        "assigned_above", "float", unit="probability", metavar="P", minimum=0, maximum=1,
        help="Also write the particles of each structure to a STAR file of its own, assigned/001.star and so on, for "
             "refining them separately: those whose structurePosterior is at least P. A larger P takes fewer and surer "
             "particles. Default: none is written."),
    Parameter("csv", "bool", default=False,
              help="Also write scores.csv: a line a particle, with its scores under every structure, for pandas and "
                   "spreadsheets."),
    Parameter("cs", "bool", default=False, expert=True,
              help="Also write particles.cs and particles.csg for cryoSPARC. Particles that came from a .cs file get "
                   "them in any case."),
)
_RESTART = Parameter(
    "restart", "bool", default=False,
    help="Throw away what an earlier run left in the output folder, in place of continuing it.")

# ---------------------------------------------------------------- verbs

_TEMPLATES = (
    Parameter(
        "structure", "paths", metavar="FILE", required=True,
        help="Structures: maps (.mrc, .map) or atomic models (.pdb, .cif), also with .gz."),
    _LABELS,
    Parameter("box", "int", unit="pixel", metavar="N", required=True, minimum=8,
              help="Box of the templates: the particles' box. A larger one takes more room and time."),
    Parameter("pixel", "float", unit="Å", metavar="A", required=True, above=0,
              help="Pixel size of the templates: the particles' pixel size. A larger one holds less detail."),
    _SYMMETRY,
    Parameter(
        "angular_step", "float", unit="degree", metavar="DEG", above=0,
        help="Angle between neighbouring views. A larger step gives fewer views, faster and coarser. "
             "Default: from the structure's size and the resolution."),
    Parameter(
        "views", "path", metavar="FILE", expert=True,
        help="A text or STAR file of viewing directions to use in place of a regular set: rot and tilt in "
             "degree and, if wanted, a weight, a view a line."),
    _RESOLUTION,
    *_ATOMS,
    Parameter("preview", "int", default=200, unit="views", metavar="N", minimum=0, expert=True,
              help="At most this many views go into the MRC stack to look at. More show more of the views and take more room; "
                   "0 writes none."),
    _THREADS, _PRECISION, _OUT)

_PARTICLES_VERB = (
    _PARTICLES, *_IMAGES, _MASK_DIAMETER, _RESOLUTION,
    Parameter(
        "downsample", "int", unit="pixel", metavar="N", minimum=8, expert=True,
        help="Cut the Fourier transform to that of a box of N pixels. A smaller N is faster and holds less "
             "detail. Default: the box as it is."),
    _BAD_IMAGES, *_COMPUTE, _PRECISION,
    replace(_BATCH_IMAGES, help="Images handled together. More use more memory. Default: 256."), _RESTART, _OUT)

_LIKELIHOOD = (
    _PARTICLES,
    Parameter(
        "structures", "paths", metavar="FILE", required=True,
        help="Structures to compare with: maps (.mrc, .map), atomic models (.pdb, .cif), also with .gz, or the folder made "
             "by 'cryolike-scipion templates'."),
    _LABELS, _SYMMETRY,
    Parameter(
        "search", "choice", default="hierarchical", choices=("hierarchical", "exhaustive", "local", "fixed"),
        help="hierarchical: over all poses, from coarse to fine, closer where the likelihood can be; "
             "exhaustive: every view, in-plane angle and shift, then finer where the likelihood is; local: "
             "around the poses that the particles have; fixed: only score the poses that the particles "
             "have."),
    Parameter(
        "max_shift", "float", unit="Å", metavar="A", minimum=0,
        help="Largest shift searched, in any direction. A larger one finds worse centred particles and "
             "takes longer, by its square. Default: 10 % of the box."),
    Parameter(
        "shift_step", "float", unit="Å", metavar="A", above=0, expert=True,
        help="Distance between the shifts of the first grid. A larger step is faster and coarser. Default: "
             "half the resolution limit, at least one pixel, at most half of the largest shift."),
    Parameter("shifts_x", "int", unit="shifts", metavar="N", minimum=1, expert=True,
              help="Number of shifts along x, from -max to +max, in place of a shift step. More are finer and slower."),
    Parameter("shifts_y", "int", unit="shifts", metavar="N", minimum=1, expert=True,
              help="Number of shifts along y, from -max to +max, in place of a shift step. More are finer and slower."),
    Parameter(
        "angular_step", "float", unit="degree", metavar="DEG", above=0,
        help="Angle between neighbouring views of the first grid. A larger step is faster, and can miss "
             "narrow peaks of the likelihood. Default: from the particle's size and the resolution."),
    Parameter(
        "levels", "int", default=2, unit="levels", metavar="N", minimum=0, expert=True,
        help="How often the sampling is halved, in angle and shift, where the likelihood is. More levels "
             "make logLikelihood and posteriors more exact and take longer."),
    Parameter(
        "local_range", "float", default=15.0, unit="degree", metavar="DEG", above=0,
        help="For the local search: how far from the input pose directions and in-plane angles are tried. A "
             "larger range takes longer and forgives worse input poses."),
    _RESOLUTION, _STRUCTURE_MASK, *_IMAGES,
    Parameter(
        "noise", "choice", default="white", choices=("white", "radial"),
        help="Noise model, with unknown variance for each particle: white, or radial, coloured with a spectrum for each optics "
             "group, from the background of the particles and from what is left of them without their projections. Radial "
             "tells structures apart better where the noise is coloured, as that of real images is."),
    Parameter(
        "noise_per", "choice", default="group", choices=("group", "micrograph"), expert=True,
        help="For radial noise: one spectrum for each optics group, or, for what the background of its particles tells, one "
             "for each micrograph with ten particles or more."),
    Parameter(
        "noise_from", "path", metavar="DIR", expert=True,
        help="For radial noise: take the spectra that another run found, which may have other structures: its output "
             "folder. For runs that are merged. Default: those of --scale-from, or found from these particles."),
    Parameter(
        "scale", "choice", default="learned", choices=("learned", "free"), expert=True,
        help="Prior of the particle's contrast: learned from the first particles of each optics group, or "
             "flat. Only the learned one can be compared with 'no particle here' and does not depend on grey "
             "units."),
    Parameter("match_amplitudes", "bool", default=False, expert=True,
              help="Scale the amplitudes of every structure, shell by shell, to the structures' common radial profile, so that "
                   "sharpening, filters and scattering models do not decide between them. For maps of different origin, and "
                   "for atomic models beside maps."),
    Parameter("pilot", "int", default=100, unit="particles", metavar="N", minimum=1, expert=True,
              help="Particles per optics group from which the contrast prior is learned. More are slower and "
                   "surer."),
    Parameter(
        "scale_from", "path", metavar="DIR", expert=True,
        help="Take the contrast prior that another run over the same structures learned: its output folder. For "
             "particles that are scored in parts. Default: learned from these particles."),
    Parameter(
        "learn_only", "bool", default=False, expert=True,
        help="Learn the contrast prior, write it to scale.json in the output folder, and stop: for --scale-from."),
    Parameter("no_report", "bool", default=False, expert=True,
              help="Write no report.html: for parts that are merged."),
    Parameter("priors", "floats", unit="weights", metavar="P", minimum=0, expert=True,
              help="Prior weight of each structure, in their order. A larger weight draws undecided "
                   "particles. Default: equal."),
    Parameter("shift_prior", "float", unit="Å", metavar="A", above=0, expert=True,
              help="Width (standard deviation) of a Gaussian prior over shifts, along x and y, about the centre of the search. "
                   "A smaller one trusts the centring more. Default: all searched shifts are as probable."),
    Parameter("view_prior", "choice", default="uniform", choices=("uniform", "input"), expert=True,
              help="Prior over views: uniform, or as the poses that the particles came with are distributed (spread over 10°, "
                   "with a tenth left uniform)."),
    Parameter("posterior_angle", "float", default=5.0, unit="degree", metavar="DEG", above=0, expert=True,
              help="posePosterior is the probability within this angle of the best pose; a larger angle gives larger ones."),
    Parameter("posterior_shift", "float", default=1.0, unit="pixel", metavar="PX", above=0, expert=True,
              help="posePosterior is the probability within this shift of the best pose; a larger shift gives larger ones."),
    Parameter("best_poses", "int", default=5, unit="poses", metavar="N", minimum=0, maximum=24, expert=True,
              help="How many distinct poses of each particle and structure to keep in scores.h5, with their probabilities. "
                   "More make larger files."),
    *_ATOMS,
    Parameter(
        "keep", "choice", default="pose", expert=True,
        choices=("pose", "template", "shift", "rotation", "shift-rotation", "full"),
        help="What to store beside the best pose: the best for each template, shift, rotation, shift and "
             "rotation, or all scores (refused where they exceed the memory bound)."),
    Parameter("rows", "str", metavar="A:B", expert=True,
              help="Score only rows A to B of the particle file, counted from 1, both included; A: and :B "
                   "are open ends. The runs can be put together by 'merge'."),
    *_EXPORTS, _BAD_IMAGES, *_COMPUTE, _MEMORY, _SHARED_BY, _PRECISION, _BATCH_IMAGES,
    Parameter("batch_templates", "int", unit="views", metavar="N", minimum=1, expert=True,
              help="Views handled together. More use more memory. Default: found from the memory bound."),
    _RESTART, _OUT)

_MERGE = (
    Parameter("runs", "paths", metavar="OUT_DIR", required=True, positional=True,
              help="Output folders of 'likelihood' (or 'merge') over different structures, or different particles."),
    Parameter("priors", "floats", metavar="P", minimum=0, expert=True,
              help="Prior weight of each structure of the merged table. Default: equal."),
    *_EXPORTS, _OUT)

_RUN_DIR = Parameter("run", "path", metavar="OUT_DIR", required=True, positional=True,
                     help="Output folder of 'likelihood', 'merge' or 'particles' (for 'report' also of 'templates').")

_ENSEMBLE = (
    Parameter("scores", "path", metavar="OUT_DIR|FILE", required=True, positional=True,
              help="Output folder of 'likelihood' or 'merge', or a matrix of integrated log-likelihoods (natural logarithm): "
                   ".npy, or text with a row a line (.csv, .txt)."),
    Parameter(
        "orientation", "choice", default="structures", choices=("structures", "particles"),
        help="What the rows of a matrix are: structures, as in this program's and Xmipp's matrices, or particles, as in "
             "CryoLike's."),
    replace(_LABELS, help="A name for each structure of a matrix, in their order. Default: those of the run, or numbers."),
    Parameter("with_none", "bool", default=False,
              help="Add 'none of these' to the structures: an image without a particle. Only for log-likelihoods over the "
                   "null, such as those of a run with the learned contrast prior."),
    Parameter("concentration", "float", default=0.5, unit="particles", metavar="X", minimum=0.34, expert=True,
              help="Of the Dirichlet prior, for each structure: so many particles are assumed of each beforehand. 0.5 is "
                   "Jeffreys' prior, 1 the uniform one; higher draws populations to equal ones."),
    Parameter("bootstrap", "int", default=200, unit="replicates", metavar="N", minimum=0, expert=True,
              help="How often the particles are drawn anew. More make the bootstrap intervals smoother; 0 leaves them out."),
    Parameter("seed", "int", default=1, metavar="N", minimum=0, expert=True,
              help="Seed of the random numbers. Another one draws others; neither larger nor smaller is better."),
    _THREADS, _OUT)

_INSPECT = (
    _RUN_DIR,
    Parameter("row", "int", metavar="N", required=True, minimum=1,
              help="Row of the particle in particles.star, counted from 1."),
    Parameter("landscape", "bool", default=False,
              help="Also compute the scores over all views and over shifts and rotations (slower)."),
    *_COMPUTE,
    replace(_OUT, metavar="FILE", help="NPZ file to write: particle, best templates, residual, score maps."))

_REPORT = (
    _RUN_DIR,
    Parameter("title", "str", metavar="TEXT", help="Title of the page. Default: the folder's name."),
    replace(_OUT, required=False, metavar="FILE",
            help="HTML file to write. Default: report.html in the output folder."))

_SIMULATE = (
    Parameter(
        "structures", "paths", metavar="FILE",
        help="Structures to project: maps or atomic models. Default: a made-up protein in two states is "
             "written to the output folder and used."),
    _SYMMETRY,
    Parameter("count", "int", default=200, unit="particles", metavar="N", minimum=1,
              help="Number of particles."),
    Parameter("populations", "floats", metavar="P", minimum=0,
              help="Relative number of particles of each structure. Default: equal."),
    Parameter("box", "int", unit="pixel", metavar="N", minimum=8,
              help="Box of the particles. Default: the first map's; 64 without a map."),
    Parameter("pixel", "float", unit="Å", metavar="A", above=0,
              help="Pixel size of the particles. Default: the first map's; 3 without a map."),
    _RESOLUTION,
    Parameter("snr", "float", default=0.1, metavar="X", above=0,
              help="Variance of the clean images over that of the noise, over the whole box. Higher is "
                   "easier."),
    Parameter("noise_from", "path", metavar="DIR", expert=True,
              help="Give the noise the spectrum that a run with --noise radial found: its output folder. For particles like "
                   "those of that run. Default: white."),
    Parameter("max_shift", "float", unit="Å", metavar="A", minimum=0,
              help="Largest shift along x and along y. Default: 5 % of the box."),
    Parameter("defocus_min", "float", default=8000.0, unit="Å", metavar="A",
              help="Least defocus; underfocus is positive."),
    Parameter("defocus_max", "float", default=25000.0, unit="Å", metavar="A",
              help="Greatest defocus. Higher gives more low-resolution contrast."),
    Parameter("astigmatism", "float", default=500.0, unit="Å", metavar="A", minimum=0,
              help="Largest difference between the defocus values of a particle."),
    Parameter("voltage", "float", default=300.0, unit="kV", metavar="KV", above=0,
              help="Acceleration voltage."),
    Parameter("cs", "float", default=2.7, unit="mm", metavar="MM", minimum=0, help="Spherical aberration."),
    Parameter("amplitude_contrast", "float", default=0.1, metavar="Q", minimum=0, maximum=1,
              help="Amplitude contrast, a fraction. Higher gives more contrast at the lowest resolution."),
    Parameter("phase_shift", "float", default=0.0, unit="degree", metavar="DEG", expert=True,
              help="Phase shift of a phase plate."),
    Parameter("scale_spread", "float", default=0.0, metavar="X", minimum=0, expert=True,
              help="Relative standard deviation of the contrast from particle to particle."),
    Parameter("offset_spread", "float", default=0.0, metavar="X", minimum=0, expert=True,
              help="Standard deviation of a constant added to each particle, in units of the noise."),
    Parameter("seed", "int", default=1, metavar="N", minimum=0, help="Seed of the random numbers."),
    *_ATOMS, _THREADS, _OUT)

_STAR = (
    _PARTICLES,
    next(parameter for parameter in _IMAGES if parameter.name == "root"),
    next(parameter for parameter in _IMAGES if parameter.name == "pixel"),
    next(parameter for parameter in _IMAGES if parameter.name == "amplitude_contrast"),
    replace(_OUT, metavar="FILE", help="STAR file to write."))

_RUN = (
    Parameter("job", "path", metavar="FILE", required=True,
              help="JSON file with the verb, its parameters and the program's version."),
    replace(_DEVICE, default=None, help=_DEVICE.help + " Default: what the file says."),
    replace(_THREADS, help="CPU threads. Default: what the file says."))

VERBS: Dict[str, List[Parameter]] = {
    "templates": list(_TEMPLATES),
    "particles": list(_PARTICLES_VERB),
    "likelihood": list(_LIKELIHOOD),
    "merge": list(_MERGE),
    "ensemble": list(_ENSEMBLE),
    "inspect": list(_INSPECT),
    "report": list(_REPORT),
    "simulate": list(_SIMULATE),
    "star": list(_STAR),
    "run": list(_RUN),
}

SUMMARIES: Dict[str, str] = {
    "templates": "make templates from maps and atomic structures",
    "particles": "bring particle images onto the polar Fourier grid",
    "likelihood": "score particles against structures: best poses, likelihoods, posteriors",
    "merge": "put likelihood runs over different structures or rows together",
    "ensemble": "populations of structures from a matrix of likelihoods, with errors",
    "inspect": "one particle with its best templates, residual and score maps",
    "report": "one self-contained HTML page of a likelihood run, templates or particles",
    "simulate": "particles of structures with known poses: for tests and planning",
    "star": "any particle file as one RELION 3.1 STAR file, with the full names of its image stacks",
    "run": "any of the above from a JSON file",
}
