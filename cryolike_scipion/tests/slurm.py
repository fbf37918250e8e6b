"""A Slurm of its own on this machine, for tests: munge, controller and node as the user who runs the tests."""

import os
import pwd
import signal
import socket
import subprocess
import time
from pathlib import Path

_CONFIG = """\
ClusterName=cryolike
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
SlurmctldPort={controller}
SlurmdPort={node}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=1
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory} State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""
_USER = pwd.getpwuid(os.getuid()).pw_name
_MEMORY = 8000  # MiB that the node says it has
_WAIT = 60.0  # seconds, on a machine with other work


class Slurm:
    """Munge and Slurm from Debian's packages, in a folder; nothing of the machine's own configuration is used or changed.

    Parameters
    ----------
    folder : pathlib.Path
        A new folder for keys, configuration, state and logs.
    cpus : int
        CPUs that the node says it has.
    """

    def __init__(self, folder, cpus=2):
        self.folder = Path(folder)
        self._daemons = []
        for name in ("state", "spool"):
            (self.folder / name).mkdir(parents=True)
        os.chmod(str(self.folder), 0o755)
        host = socket.gethostname().split(".")[0]
        ports = free_ports(2)
        text = _CONFIG.format(
            host=host, user=_USER, folder=self.folder, controller=ports[0], node=ports[1], cpus=cpus, memory=_MEMORY
        )
        self.config = self.folder / "slurm.conf"
        self.config.write_text(text)
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        self.environ = dict(os.environ, SLURM_CONF=str(self.config))
        try:
            self._start(host)
        except BaseException:
            self.stop()
            raise

    def _start(self, host):
        munge = ["munged", "--foreground", "--force", "--num-threads=2"]
        munge += [f"--{name}={self.folder}/munge.{end}" for name, end in (("key-file", "key"), ("socket", "socket"))]
        munge += [f"--{name}={self.folder}/munge.{end}" for name, end in (("pid-file", "pid"), ("log-file", "log"))]
        self._daemon(munge + [f"--seed-file={self.folder}/munge.seed"])
        wait_for(lambda: (self.folder / "munge.socket").exists(), "munge", self.logs)
        self._daemon(["slurmctld", "-D", "-f", str(self.config)])
        self._daemon(["slurmd", "-D", "-f", str(self.config), "-N", host])
        wait_for(lambda: self.says("sinfo", "-h", "-o", "%T").strip() == "idle", "Slurm", self.logs)

    def _daemon(self, command):
        # Daemons are where the system's programs are, which need not be in a user's PATH.
        path = os.pathsep.join([self.environ["PATH"], "/usr/sbin", "/sbin"])
        environ = dict(self.environ, PATH=path)
        with open(str(self.folder / f"{command[0]}.out"), "wb") as out:
            self._daemons.append(
                subprocess.Popen(["env"] + command, env=environ, stdout=out, stderr=out, stdin=subprocess.DEVNULL)
            )

    def says(self, *command):
        """Return what a Slurm command prints."""
        done = subprocess.run(command, env=self.environ, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        return done.stdout.decode()

    def jobs(self, state="all"):
        """Return the numbers of the jobs in a state, such as "running"."""
        return [int(word) for word in self.says("squeue", "-h", "-t", state, "-o", "%i").split()]

    def logs(self):
        """Return the end of every log, for a failing test."""
        text = ""
        for path in sorted(self.folder.glob("*.log")) + sorted(self.folder.glob("*.out")):
            text += f"\n==== {path.name}\n{path.read_text(errors='replace')[-1500:]}"
        return text

    def stop(self):
        """Cancel all jobs and end the daemons."""
        self.says("scancel", "-f", "-u", _USER)
        for daemon in reversed(self._daemons):
            daemon.send_signal(signal.SIGTERM)
            try:
                daemon.wait(15)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()


def free_ports(count):
    """Return ports that nothing listens on."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def wait_for(condition, what, logs=lambda: "", seconds=_WAIT):
    """Wait until a condition holds; fail with the logs after some time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what} took longer than {seconds:.0f} s{logs()}"
        time.sleep(0.2)
