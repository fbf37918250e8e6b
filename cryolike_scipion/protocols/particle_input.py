"""The part of a form that asks for particles, shared by the nodes that take them."""

from pyworkflow.protocol.params import PointerParam

from ..convert.original_star import OriginalStar, find_star
from ..convert.particles import PROVIDED
from .form import add_parameters

# Scipion knows the pixel size, the amplitude contrast and where the images are; the form does not ask.
IMAGE_PARAMETERS = ("invert", "background_diameter", "no_normalise")


def add_particles(section):
    """Add the pointer to particles."""
    section.addParam(
        "inputParticles",
        PointerParam,
        pointerClass="SetOfParticles",
        important=True,
        pointerCondition="hasCTF",
        label="Input particles",
        help="Particles with a CTF. Disabled ones are left out.",
    )


def add_image_preparation(section, verb):
    """Add how images are prepared."""
    add_parameters(section, verb, ("mask_diameter", "resolution") + IMAGE_PARAMETERS)


def particle_errors(particles, mask_diameter, resolution):
    """Return why some particles cannot be used, one line each.

    Parameters
    ----------
    particles : SetOfParticles, or None.
    mask_diameter, resolution : float or None
        From the form, in Å.
    """
    if particles is None:
        return ["Choose the input particles."]
    if particles.getSize() == 0:
        return ["The input set is empty. Choose a set that has particles."]
    errors = []
    if not particles.hasCTF():
        errors.append(
            "The particles have no CTF. Estimate it on the micrographs and extract the particles with it, or "
            "import them from a STAR file that holds it."
        )
    pixel = particles.getSamplingRate() or 0.0
    if pixel <= 0:
        return errors + ["The particles have no pixel size. Set it when importing them."]
    dimensions = particles.getDimensions()
    if dimensions and dimensions[0] != dimensions[1]:
        width, height = dimensions[:2]
        errors.append(f"The particle images are not square ({width} x {height}). Extract them in square boxes.")
    width = pixel * (dimensions[0] if dimensions else 0)
    if width and mask_diameter and mask_diameter > width:
        errors.append(
            f"The mask diameter of {mask_diameter:g} Å is larger than the box of {width:g} Å. Give a smaller one, or none."
        )
    if resolution and resolution < 2 * pixel * (1 - 1e-6):
        errors.append(
            f"A resolution of {resolution:g} Å is beyond the particles' Nyquist limit of {2 * pixel:g} Å. "
            "Give a larger number, or none."
        )
    return errors


def original_star(protocol, particles):
    """Return the file that particles were imported from, as OriginalStar; None, and a line in the log, if there is none."""
    path = find_star(protocol, particles)
    try:
        return OriginalStar(path, PROVIDED) if path else None
    except (OSError, ValueError) as error:
        protocol.warning(f"The original STAR file cannot be used: {error}")
        return None


def input_notes(names, original):
    """Return what a user should know of how the particles reached the engine, one line each.

    Parameters
    ----------
    names : StackNames
    original : OriginalStar, or None.
    """
    formats = ", ".join(names.formats())
    notes = [f"{len(names.converted)} image stacks were converted to MRC ({formats})."] if names.converted else []
    if original is None:
        return notes + [
            "No original STAR file was found: all particles have the optics that Scipion keeps, and values of earlier programs "
            "that its import dropped are not in particles.star."
        ]
    notes.append(f"Optics groups and further columns are from {original.path}.")
    if original.missed:
        notes.append(
            f"{len(original.missed)} images are not in it: these have the optics that Scipion keeps, and 0 in other columns."
        )
    return notes
