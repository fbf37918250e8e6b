"""What the pointers of a form lead to while it is being filled."""

from ..convert.previews import projection_of_structure, projection_of_template
from ..protocols.structure_input import pointed_structures


def particles_of(protocol):
    """Return the particles that a form points to, None if there are none."""
    pointer = getattr(protocol, "inputParticles", None)
    particles = pointer.get() if pointer is not None else None
    return particles if particles is not None and particles.getSize() else None


def projections_of(protocol):
    """Return for each structure that a form points to a callable: (label, () -> projection, width, diameter)."""
    templates = getattr(protocol, "inputTemplates", None)
    if templates is not None and not protocol._fromStructures():
        items = [item.clone() for item in templates.get().iterItems()] if templates.get() is not None else []
        return [(item.getLabel(), lambda item=item: projection_of_template(item)) for item in items]
    pointers = getattr(protocol, "inputStructures", None)
    structures = pointed_structures(pointers) if pointers is not None else []
    return [(each.label, lambda each=each: projection_of_structure(each)) for each in structures]


def fresh(form):
    """Return a form's protocol with what the form says now."""
    for name in form.widgetDict:
        if hasattr(form.protocol, name):
            form.setParamFromVar(name)
    return form.protocol
