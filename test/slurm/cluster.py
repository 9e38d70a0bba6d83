"""A Slurm cluster of several nodes on this machine, for tests: its own munge, controller, node daemons, ports, folders.

Needs root, and the packages that tools/installers/install_slurm.sh installs. Every daemon runs in the foreground as a
child of this process, so nothing is left when the tests have ended.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
LAUNCHER = REPO / "utils" / "run_slurm.py"
NODES = ("n1", "n2", "n3")
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "scancel")

# Two processors a node: more than the machine may have, as tests mostly wait.
CONFIG = """\
ClusterName=s5test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ctld_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=6
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=2,sched_min_interval=100000,bf_interval=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
ReturnToService=2
SlurmdParameters=config_overrides
SlurmctldTimeout=10
SlurmdTimeout=6
InactiveLimit=0
KillWait=10
MinJobAge=60
MaxArraySize=21
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/none
NodeName=DEFAULT CPUs=2 RealMemory=1000
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=10
PartitionName=low Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=20
PartitionName=brief Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=2
"""

LAUNCHER_CONFIG = """\
command sbatch --export=ALL --requeue
option mem=*
option time=* --time $0
option num_threads=* --cpus-per-task $0
option num_nodes=* --nodes $0 --ntasks-per-node 1
option gpu=*
option grace=* --signal B:USR1@$0
option partition=* --partition $0
option nodelist=* --nodelist $0
option exclude=* --exclude $0
option hold=true --hold
default poll=1
default patience=2
"""


def missing() -> str:
    """Why there can be no cluster here; empty if there can."""
    if os.geteuid() != 0:
        return "only root can start Slurm's daemons"
    absent = [program for program in PROGRAMS if program_path(program) is None]
    return f"no {', '.join(absent)} (tools/installers/install_slurm.sh)" if absent else ""


def program_path(name: str) -> str | None:
    """Where a program is; daemons are often not on the PATH."""
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")


class Cluster:
    """See the module. Attributes: ``folder``, ``env`` (what clients need), ``config`` (of the launcher)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "SBATCH", "SRUN"))}
        self.env |= {"SLURM_CONF": str(folder / "slurm.conf")}
        self.config = folder / "launcher.conf"
        self.ports = dict(zip(("ctld", *NODES), free_ports(1 + len(NODES)), strict=True))

    def start(self) -> None:
        """Starts all daemons; returns when every node is idle."""
        for name in ("state", "spool"):
            (self.folder / name).mkdir()
        key = self.folder / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o400)
        nodes = "\n".join(
            f"NodeName={n} NodeHostname={socket.gethostname()} NodeAddr=127.0.0.1 Port={self.ports[n]}" for n in NODES
        )
        text = CONFIG.format(host=socket.gethostname(), ctld_port=self.ports["ctld"], folder=self.folder, nodes=nodes)
        (self.folder / "slurm.conf").write_text(text)
        self.config.write_text(LAUNCHER_CONFIG)
        files = {"socket": "munge.socket", "pid-file": "munge.pid", "log-file": "munge.log", "seed-file": "munge.seed"}
        options = [f"--{option}={self.folder / name}" for option, name in files.items()]
        self._daemon("munged", "munged", "--foreground", "--force", f"--key-file={key}", *options)
        self.wait((self.folder / "munge.socket").exists, 10)
        self._daemon("slurmctld", "slurmctld", "-D")
        self.wait(lambda: self.run("scontrol", "ping", check=False).returncode == 0, 20)
        for node in NODES:
            self.start_node(node)
        self.wait(lambda: all(self.node_state(node) == "idle" for node in NODES), 30)

    def stop(self) -> None:
        """Ends all jobs and daemons."""
        if "slurmctld" in self.daemons:
            self.run("scancel", "--user", "root", "--signal", "KILL", "--full", check=False)
        for node in NODES:
            self.kill_node(node)
        for daemon in self.daemons.values():
            daemon.kill()
            daemon.wait()

    def start_node(self, node: str) -> None:
        """Starts a node's daemon."""
        self._daemon(node, "slurmd", "-D", "-N", node)

    def kill_node(self, node: str) -> None:
        """What a power cut does to a node: its daemon and all that it runs are gone at once."""
        daemon = self.daemons.pop(node, None)
        # A job's processes are not the daemon's children: its step daemon is a daemon of its own.
        for _ in range(3):
            for pid in processes_of(self.folder, node):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        if daemon is not None:
            daemon.kill()
            daemon.wait()

    def run(
        self, *words: str | Path, check: bool = True, timeout: float = 120, cwd: Path | None = None, **env: str
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command that finds this cluster."""
        done = subprocess.run(
            list(map(str, words)),
            env={**self.env, **env},
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert not check or done.returncode == 0, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def launch(self, *words: str | Path, cwd: Path | None = None, **env: str) -> subprocess.Popen[str]:
        """Starts utils/run_slurm.py with some words."""
        command = [str(LAUNCHER), "--config", str(self.config), *map(str, words)]
        return subprocess.Popen(
            command,
            env={**self.env, **env},
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def job_ids(self, states: str = "pending,running,completing,configuring") -> list[str]:
        """Jobs in the queue, tasks of arrays one by one."""
        return self.run("squeue", "-h", "-r", "-t", states, "-o", "%i").stdout.split()

    def node_state(self, node: str) -> str:
        """State of a node, ``idle`` or so."""
        return self.run("sinfo", "-h", "-N", "-n", node, "-o", "%t", "-p", "main", check=False).stdout.strip()

    def node_of(self, job: str) -> str:
        """The node that a job runs on; empty while it waits."""
        return self.run("squeue", "-h", "-j", job, "-o", "%N", check=False).stdout.strip()

    @staticmethod
    def wait(true: Callable[[], object], seconds: float = 30) -> None:
        """Waits until something is true; fails if it does not get so in time."""
        until = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < until, f"not within {seconds} s"
            time.sleep(0.1)

    def _daemon(self, key: str, program: str, *options: str) -> None:
        path = program_path(program)
        assert path is not None
        log = open(self.folder / f"{key}.stderr", "ab")  # noqa: SIM115
        # A session of its own: Ctrl-C at the tests is not for the daemons, which stop() ends.
        self.daemons[key] = subprocess.Popen(
            [path, *options], env=self.env, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
        )
        log.close()


def free_ports(n: int) -> list[int]:
    """Ports that nobody listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(n)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def processes_of(folder: Path, node: str) -> Iterator[int]:
    """Processes of a node: its step daemons, known by their log, and all with its name in their environment."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if (entry / "cmdline").read_bytes().startswith(b"slurmstepd"):
                found = str(folder / f"{node}.log") in open_files(entry)
            else:
                environment = (entry / "environ").read_bytes().split(b"\0")
                wanted = (f"SLURM_CONF={folder}/slurm.conf", f"SLURMD_NODENAME={node}")
                found = all(each.encode() in environment for each in wanted)
        except OSError:
            continue
        if found:
            yield int(entry.name)


def open_files(process: Path) -> list[str]:
    """Paths that a process has open."""
    found = []
    for each in (process / "fd").iterdir():
        with contextlib.suppress(OSError):
            found.append(os.readlink(each))
    return found


if __name__ == "__main__":
    print(missing())
