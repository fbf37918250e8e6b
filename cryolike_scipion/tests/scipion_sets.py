"""Small Scipion sets and STAR files for the tests of the Scipion half."""

import os

import mrcfile
import numpy as np
from pwem.objects import Acquisition, CTFModel, Particle, SetOfParticles, Transform

from cryolike_scipion.convert.poses import transforms_from_poses

ODD_NAME = "stack 'one' \"two\" $(touch oops) 100%s ä\nline.mrcs"


def write_stack(path, count, box=16, seed=1):
    """Write a stack of noise; return its path."""
    images = np.random.default_rng(seed).normal(size=(count, box, box)).astype(np.float32)
    with mrcfile.new(str(path), overwrite=True) as file:
        file.set_data(images)
        file.set_image_stack()
        file.voxel_size = 1.5
    return str(path)


def write_map(path, box=16, pixel=2.0, shape=None):
    """Write a map of noise; return its path."""
    density = np.random.default_rng(2).normal(size=shape or (box,) * 3).astype(np.float32)
    with mrcfile.new(str(path), overwrite=True) as file:
        file.set_data(density)
        file.set_volume()
        file.voxel_size = pixel
    return str(path)


def make_particles(filename, stacks, pixel=1.5, posed=False, change=None, ctf=True):
    """Make a SetOfParticles over some stacks.

    Parameters
    ----------
    filename : its sqlite file.
    stacks : list of (path, count)
    pixel : pixel size in Å.
    posed : give it random poses and a projection alignment.
    change : callable
        Gets each particle, numbered from 1, before it is added.
    ctf : give each particle a CTF.
    """
    random = np.random.default_rng(5)
    if os.path.exists(str(filename)):
        os.remove(str(filename))
    particles = SetOfParticles(filename=str(filename))
    particles.setSamplingRate(pixel)
    particles.setHasCTF(ctf)
    particles.setAcquisition(Acquisition(voltage=200, sphericalAberration=1.4, amplitudeContrast=0.07, magnification=50000))
    if posed:
        particles.setAlignmentProj()
    number = 0
    for path, count in stacks:
        for index in range(1, count + 1):
            number += 1
            particle = Particle(location=(index, str(path)))
            if ctf:
                particle.setCTF(CTFModel(defocusU=10000.0 + number / 3, defocusV=9000.0, defocusAngle=12.5))
            if posed:
                pose = [
                    random.uniform(-180, 180),
                    random.uniform(0, 180),
                    random.uniform(-180, 180),
                    random.uniform(-5, 5),
                    random.uniform(-5, 5),
                ]
                particle.setTransform(Transform(matrix=transforms_from_poses(*pose, pixel)[0]))
            particle.setObjId(10 * number)
            if change is not None:
                change(particle, number)
            particles.append(particle)
    particles.write()
    return particles


def star_subset(source, target, rows, stack):
    """Write some rows (from 1) of a STAR file whose images are in one stack, which is linked beside it."""
    with open(str(source), encoding="utf-8") as stream:
        lines = stream.readlines()
    first = next(i for i, line in enumerate(lines) if "@" in line)
    folder = os.path.dirname(str(target))
    os.makedirs(folder, exist_ok=True)
    link = os.path.join(folder, os.path.basename(str(stack)))
    if not os.path.lexists(link):
        os.symlink(str(stack), link)
    with open(str(target), "w", encoding="utf-8") as stream:
        stream.writelines(lines[:first] + [lines[first + row - 1] for row in rows])
    return str(target)
