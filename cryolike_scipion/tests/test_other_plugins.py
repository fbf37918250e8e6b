"""Particles as the plugins of cryoSPARC and Xmipp read them, by their own readers.

Both plugins are looked for in ``OTHER_PLUGINS`` (``make environment`` puts them there without their dependencies); a process of
its own loads them, because Scipion would load their protocols into every other test.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

OTHER_PLUGINS = Path(os.environ.get("CRYOLIKE_OTHER_PLUGINS", Path(sys.prefix) / "other-plugins"))
SCRIPT = """
import os, sys
sys.path.append({plugins!r})
from cryolike_scipion.tests import conftest  # the Scipion environment
import mrcfile, numpy as np, pyworkflow
pyworkflow.Config.getDomain().getPlugins()
from pwem.constants import ALIGN_PROJ
from pwem.objects import SetOfParticles
from cryolike_scipion.convert.locations import StackNames
from cryolike_scipion.convert.original_star import OriginalStar
from cryolike_scipion.convert.particles import PROVIDED, write_particles
from cryolike_scipion.tests.random_star import random_star
from cryolike_scipion.tests.test_scipion_round_trips import PIXEL, check_engine_input, check_poses, imported, numbers, table

os.chdir({folder!r})
for k in range(3):
    with mrcfile.new(f"stack{{k}}.mrcs") as file:
        file.set_data(np.zeros((99, 16, 16), np.float32))
star = random_star("in.star", 5, ["{{:.6f}}", "{{:e}}"], 3, 9, 16, PIXEL, ("x",))
relion = imported(star, os.getcwd())
particles = SetOfParticles(filename="other.sqlite")
particles.setSamplingRate(PIXEL)
particles.setAcquisition(relion.getAcquisition().clone())
{read}
particles.setAlignmentProj()
particles.write()
write_particles(particles, "plain.star", StackNames("a"))
before, after = table(star), table("plain.star")
check_poses(before, after)
for row in range(9):
    one, two = (numbers(each, ("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle"))[:, row] for each in (before, after))
    swapped = one[0] < one[1]
    assert np.allclose(one[[1, 0]] if swapped else one[:2], two[:2], rtol=1e-6)
    assert abs((one[2] + 90 * swapped - two[2] + 90) % 180 - 90) < 1e-3
assert len(table("plain.star", "optics")["rlnVoltage"]) == 1
write_particles(particles, "whole.star", StackNames("b"), original=OriginalStar(star, PROVIDED))
check_engine_input(before, table("whole.star"), table(star, "optics"), table("whole.star", "optics"))
print("all is there")
"""
READERS = {
    "cryosparc2": """
from cryosparc2.convert import readSetOfParticles
readSetOfParticles("particles@" + star, particles, alignType=ALIGN_PROJ, samplingRate=PIXEL)
""",
    "xmipp3": """
from xmipp3.convert import readSetOfParticles, writeSetOfParticles
writeSetOfParticles(relion, "images.xmd", alignType=ALIGN_PROJ)
readSetOfParticles("images.xmd", particles, readAcquisition=False, alignType=ALIGN_PROJ)
""",
}


@pytest.mark.parametrize("plugin", READERS)
def test_values_and_original_file(tmp_path, plugin):
    """Poses and CTF are right without the original file, and with it everything is its text."""
    if not (OTHER_PLUGINS / plugin).is_dir():
        pytest.skip(f"{plugin} is not in {OTHER_PLUGINS}")
    script = SCRIPT.format(plugins=str(OTHER_PLUGINS), folder=str(tmp_path), read=READERS[plugin])
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    assert "all is there" in done.stdout, done.stdout[-3000:] + done.stderr[-3000:]
