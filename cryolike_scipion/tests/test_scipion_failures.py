"""An engine that dies, lies or complains: the node fails with a sentence, and makes no output."""

import os
import stat

import pytest

from cryolike_scipion.protocols import ProtCryolikeConvertParticles

from .scipion_sets import ODD_NAME, make_particles, write_stack


@pytest.fixture(scope="module")
def source(project):
    make_particles("odd.sqlite", [(write_stack(ODD_NAME, 2), 2)]).close()
    return project.import_set(os.path.abspath("odd.sqlite"), 1.5)


@pytest.fixture()
def run(project, source, monkeypatch):
    """Run *convert particles* with a shell script in place of the engine's Python."""

    def start(script, protocol=None):
        path = os.path.abspath("engine.sh")
        with open(path, "w") as stream:
            stream.write("#!/bin/sh\n" + script)
        os.chmod(path, os.stat(path).st_mode | stat.S_IXUSR)
        monkeypatch.setenv("CRYOLIKE_PYTHON", path)
        if protocol is None:
            protocol = project.new(ProtCryolikeConvertParticles, inputParticles=(source, "outputParticles"))
            return project.run(protocol)
        return project.run(protocol, resume=True)

    return start


def test_an_engine_that_ends_without_a_result(run):
    protocol = run("exit 0\n")
    assert protocol.isFailed()
    assert "The engine ended without writing" in protocol.getErrorMessage()
    assert not hasattr(protocol, "outputParticles")


def test_an_engine_that_is_killed(run):
    protocol = run("kill -9 $$\n")
    assert protocol.isFailed()
    assert "The engine was killed, most often for want of memory" in protocol.getErrorMessage()
    assert "The engine ended with status 3" in run("exit 3\n").getErrorMessage()


def test_what_the_engine_says_reaches_the_user_with_the_users_file_name(run):
    complaint = "inputs/stack00001.mrcs: has no row 3. Copy the stack again."
    protocol = run(f'echo "cryolike-scipion particles: ${{5%/*}}/{complaint}" >&2\nexit 2\n')
    message = protocol.getErrorMessage()
    assert "has no row 3. Copy the stack again." in message
    assert "one" in message and "stack00001" not in message, message
    assert "Traceback" not in message


def test_a_complaint_in_the_log_counts_where_a_queue_keeps_standard_error(run):
    protocol = run(
        'mkdir -p "${5%/*}/result"\n'
        'echo "2026-01-01 10:00:00,000 DEBUG stopped: the map is not a cube." > "${5%/*}/result/log.txt"\n'
    )
    assert "the map is not a cube." in protocol.getErrorMessage()
    again = run("exit 0\n", protocol)
    assert "The engine ended without writing" in again.getErrorMessage(), "an old complaint is not repeated"


def test_the_users_text_never_reaches_the_shell(run, project):
    protocol = run('echo "ARGUMENTS $*"\nexit 0\n')
    with open(protocol.getStdoutLog()) as stream:
        said = next(line for line in stream if line.startswith("ARGUMENTS"))
    job = protocol._getExtraPath("job.json")
    assert said.split()[1:7] == ["-m", "cryolike_scipion", "run", "--job", job, "--device"]
    assert "touch" not in said
    assert not os.path.exists(os.path.join(project.path, "oops"))
