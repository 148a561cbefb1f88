"""A Slurm site on this machine: nodes that are network namespaces, and stand-ins of Slurm's commands.

A node has a host name, two interfaces, a ``/tmp`` and nothing beyond the other nodes; all of them share what is
mounted, as a site's nodes share the home folders. The commands are started on the nodes by this module, run as a
script, which asks the process of the site. They do what the manuals of Slurm 24.05 say of the options that
``slurm.sbatch`` uses, and refuse others. Where sites differ, the harder variant is taken: a signal reaches only the
first process of a step, as with ``proctrack/cgroup`` by default, and a node's own name is at 127.0.1.1 for itself.
"""

import contextlib
import itertools
import json
import os
import re
import select
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

CONTROL = "SLURM_STANDIN"
"""The variable with the socket at which the site is asked."""

KILL_SECONDS = 30.0
"""Between SIGTERM and SIGKILL at the end of a job, Slurm's ``KillWait``."""

NUMBERS = itertools.count(1000)
"""Of jobs."""

NODE = """
hostname "$name"
ip link set lo up
mount -t tmpfs none /mnt
for folder in $kept; do mkdir -p "/mnt$folder" && mount --rbind "$folder" "/mnt$folder"; done
mount -t tmpfs -o mode=1777 none /tmp
for folder in $kept; do mkdir -p "$folder" && mount --rbind "/mnt$folder" "$folder"; done
mount --bind "$hosts" /etc/hosts
echo ready
exec sleep infinity
"""
"""What makes a namespace a node."""


def unavailable() -> str:
    """Return why there can be no site on this machine, or nothing."""
    command = [
        "unshare",
        "--net",
        "--mount",
        "--uts",
        "sh",
        "-c",
        "ip link add lan type bridge && mount -t tmpfs none /mnt",
    ]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        return str(error)
    return answer.stderr.strip()


@dataclass
class Node:
    """A machine of the site."""

    name: str
    number: int
    holder: subprocess.Popen[bytes]
    """The process that keeps its namespaces."""

    def inside(self, *command: str, folder: str = "/") -> list[str]:
        """Return a command line that runs a command on this node, in a folder of the node."""
        namespaces = ["--net", "--mount", "--uts", f"--wdns={folder}"]
        return ["nsenter", "--target", str(self.holder.pid), *namespaces, *command]


@dataclass
class Job:
    """A job: its batch script, its steps, and how it went."""

    number: int
    options: dict[str, str]
    command: list[str]
    environment: dict[str, str]
    folder: Path
    nodes: list[Node]
    restarts: int = 0
    requeue: bool = False
    state: str = "RUNNING"
    batch: subprocess.Popen[bytes] | None = None
    steps: list[subprocess.Popen[bytes]] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    """Processes that its script left at its end, for Slurm to kill."""
    ended: threading.Event = field(default_factory=threading.Event)

    @property
    def log(self) -> str:
        path = self.folder / self.options["output"].replace("%j", str(self.number))
        return path.read_text() if path.exists() else ""


class Site:
    """Nodes, and the jobs on them.

    Args:
        names: Of the nodes.
        shared: Folders that all nodes have at the same path, besides what is not below ``/tmp``.
    """

    def __init__(self, names: Sequence[str], shared: Sequence[Path]) -> None:
        self.mark = uuid.uuid4().hex
        self.folder = Path(tempfile.mkdtemp(prefix="site-", dir="/tmp"))
        self.jobs: dict[int, Job] = {}
        kept = [folder for folder in (*shared, self.folder) if folder.resolve().is_relative_to("/tmp")]
        self._switch = self._namespace(
            ["ip", "link", "add", "lan", "type", "bridge"], ["ip", "link", "set", "lan", "up"]
        )
        self.nodes = {name: self._node(name, i, names, kept) for i, name in enumerate(names, 1)}
        for command in ("srun", "scontrol", "scancel", "sbatch"):
            path = self.folder / "bin" / command
            path.parent.mkdir(exist_ok=True)
            path.write_text(f'#!/bin/sh\nexec {shlex.join([sys.executable, "-IS", __file__, command])} "$@"\n')
            path.chmod(0o755)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(str(self.folder / "ctl"))
        self._listener.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    # nodes

    def _namespace(self, *commands: list[str]) -> subprocess.Popen[bytes]:
        lines = " && ".join(map(shlex.join, commands))
        return self._hold(["unshare", "--net", "sh", "-c", f"{lines} && echo ready && exec sleep infinity"])

    def _hold(self, command: list[str], **environment: str) -> subprocess.Popen[bytes]:
        holder = subprocess.Popen(command, env={**os.environ, **environment}, stdout=subprocess.PIPE)
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"ready\n"
        return holder

    def _node(self, name: str, number: int, names: Sequence[str], kept: Sequence[Path]) -> Node:
        hosts = self.folder / f"hosts-{name}"
        others = [f"10.1.0.{i} {other}" for i, other in enumerate(names, 1) if other != name]
        hosts.write_text("\n".join(["127.0.0.1 localhost", f"127.0.1.1 {name}", *others, ""]))
        namespaces = ["unshare", "--net", "--mount", "--uts", "sh", "-ec", NODE]
        holder = self._hold(namespaces, name=name, hosts=str(hosts), kept=" ".join(map(str, kept)))
        node = Node(name, number, holder)
        for interface, net in (("eth0", 1), ("ib0", 2)):
            port = f"{interface}-{number}"
            there = ["type", "veth", "peer", "name", interface, "netns", str(holder.pid)]
            self._on_switch("ip", "link", "add", port, *there)
            self._on_switch("ip", "link", "set", port, "master", "lan", "up")
            address = f"10.{net}.0.{number}/24"
            subprocess.run(node.inside("ip", "address", "add", address, "dev", interface), check=True)
            subprocess.run(node.inside("ip", "link", "set", interface, "up"), check=True)
        return node

    def _on_switch(self, *command: str) -> None:
        subprocess.run(["nsenter", "--target", str(self._switch.pid), "--net", *command], check=True)

    def lose(self, name: str) -> None:
        """Switch a node off: nobody hears of it, and its processes are gone."""
        node = self.nodes.pop(name)
        for interface in ("eth0", "ib0"):
            self._on_switch("ip", "link", "set", f"{interface}-{node.number}", "down")
        self._kill(f"SLURMD_NODENAME={name}")
        node.holder.kill()

    # processes

    def processes(self, *variables: str) -> dict[int, str]:
        """Return the command lines of the processes of the site that have some variables."""
        found = {}
        wanted = {f"{CONTROL}={self.folder}/ctl".encode(), *(each.encode() for each in variables)}
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if wanted <= set((folder / "environ").read_bytes().split(b"\0")):
                    found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        return {process: line for process, line in found.items() if line}  # without one, it is a zombie

    def _kill(self, *variables: str) -> None:
        while found := self.processes(*variables):
            for process in found:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            time.sleep(0.02)

    def _start(
        self, node: Node, job: Job, command: Sequence[str], out: int, err: int, **more: str
    ) -> subprocess.Popen[bytes]:
        own = {"SLURMD_NODENAME": node.name, "SLURM_JOB_ID": str(job.number)}
        return subprocess.Popen(
            node.inside(*command, folder=str(job.folder)),
            env={**job.environment, **more, **own},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )

    # jobs

    def submit(self, *words: str, folder: Path, **environment: str) -> Job:
        """Do as ``sbatch`` in a folder: options, a script, and its arguments."""
        given, rest = _options(words)
        script = Path(rest[0]).read_text()
        lines = re.findall(r"^#SBATCH (.*)$", script, re.MULTILINE)
        options = {**_options([word for line in lines for word in shlex.split(line)])[0], **given}
        number = next(NUMBERS)
        spooled = self.folder / f"job{number}" / "slurm_script"
        spooled.parent.mkdir()
        spooled.write_text(script)
        names = options.get("nodelist", ",".join(self.nodes)).split(",")[: int(options["nodes"])]
        variables = {
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
            "HOME": str(self.folder),
            CONTROL: str(self.folder / "ctl"),
            "SLURM_CPUS_PER_TASK": options["cpus-per-task"],
            "SLURM_JOB_NUM_NODES": str(len(names)),
            "SLURM_JOB_NODELIST": ",".join(names),
        }
        if options.get("gpus-per-node", "0") != "0":
            variables["SLURM_GPUS_ON_NODE"] = options["gpus-per-node"]
        command = ["bash", str(spooled), *rest[1:]]
        nodes = [self.nodes[name] for name in names]
        job = Job(number, options, command, {**os.environ, **environment, **variables}, folder, nodes)
        self.jobs[number] = job
        threading.Thread(target=self._run, args=[job], daemon=True).start()
        return job

    def _run(self, job: Job) -> None:
        """Start a job, and again as often as it is queued again."""
        while True:
            restarts = {"SLURM_RESTART_COUNT": str(job.restarts)} if job.restarts else {}
            with (job.folder / job.options["output"].replace("%j", str(job.number))).open("ab") as log:
                job.batch = self._start(job.nodes[0], job, job.command, log.fileno(), log.fileno(), **restarts)
            code = job.batch.wait()
            if job.nodes[0].name not in self.nodes:  # the job is lost with the node of its script
                job.requeue = "requeue" in job.options
                _signal(job.steps, signal.SIGTERM)
                for step in job.steps:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        step.wait(KILL_SECONDS)
            else:
                job.left += self.processes(f"SLURM_JOB_ID={job.number}").values()
            self._kill(f"SLURM_JOB_ID={job.number}")
            job.nodes = [node for node in job.nodes if node.name in self.nodes]
            if not job.requeue:
                break
            job.requeue, job.restarts, job.steps = False, job.restarts + 1, []
            job.environment["SLURM_JOB_NUM_NODES"] = str(len(job.nodes))
            job.environment["SLURM_JOB_NODELIST"] = ",".join(node.name for node in job.nodes)
        job.state = "CANCELLED" if job.state == "CANCELLED" else "FAILED" if code else "COMPLETED"
        job.ended.set()

    def time_is_nearly_over(self, job: Job) -> None:
        """Send what ``--signal`` asks for, as before the time limit or, where a site wishes so, at preemption."""
        asked = re.fullmatch(r"(B:)?(\w+)@\d+", job.options["signal"])
        assert asked is not None
        assert job.batch is not None
        to, name = asked.groups()
        for process in [job.batch] if to else job.steps:
            process.send_signal(signal.Signals[f"SIG{name}"])

    def preempt(self, job: Job, grace: float) -> None:
        """Take a job's nodes away: SIGTERM to its steps, and after a time of grace to all; it is queued again."""
        _signal(job.steps, signal.SIGTERM)
        time.sleep(grace)
        job.requeue = True
        self._end(job)

    def cancel(self, job: Job) -> None:
        """Do as ``scancel``: SIGTERM, and SIGKILL half a minute later."""
        job.state = "CANCELLED"
        self._end(job)

    def _end(self, job: Job) -> None:
        assert job.batch is not None
        _signal([job.batch, *job.steps], signal.SIGTERM)
        try:
            job.batch.wait(KILL_SECONDS)
        except subprocess.TimeoutExpired:
            job.batch.kill()

    # commands

    def _serve(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._answer, args=[connection], daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection:
            asked, files, *_ = socket.recv_fds(connection, 2**18, 3)
            words: list[str]
            command, job, words = json.loads(asked)
            try:
                code, said = getattr(self, f"_{command}")(self.jobs[int(job)], words, connection, files)
            except Exception as error:  # a fault of the stand-in, or something that it does not know
                code, said = 1, f"{command}: error: {error!r}\n"
            os.write(files[2] if code else files[1], said.encode())
            for file in files:
                os.close(file)
            with contextlib.suppress(OSError):
                connection.sendall(str(code).encode())

    def _srun(self, job: Job, words: list[str], connection: socket.socket, files: list[int]) -> tuple[int, str]:
        options, command = _options(words)
        unknown = options.keys() - {"nodes", "ntasks", "export", "nodelist"}
        if unknown or options["nodes"] != "1" or options["ntasks"] != "1" or options["export"] != "ALL":
            raise ValueError(f"the stand-in knows no {words}")
        (node,) = [each for each in job.nodes if each.name == options["nodelist"]]
        exported = json.loads(command.pop(0))
        number = str(len(job.steps))
        task = self._start(node, job, command, files[1], files[2], **{**exported, "SLURM_STEP_ID": number})
        job.steps.append(task)
        while task.poll() is None:
            if select.select([connection], [], [], 0.05)[0]:  # srun itself is gone
                if job.nodes[0].name in self.nodes:  # it was ended, and its step with it
                    task.kill()
                    self._kill(f"SLURM_JOB_ID={job.number}", f"SLURM_STEP_ID={number}")
                task.wait()
        return task.returncode, ""

    def _scontrol(self, job: Job, words: list[str], *_: object) -> tuple[int, str]:
        match words[1:]:
            case ["show", "hostnames", nodes]:
                return 0, "".join(f"{name}\n" for name in nodes.split(","))
            case ["requeue", number]:
                (asked,) = [each for each in self.jobs.values() if each.number == int(number)]
                asked.requeue = True
                threading.Thread(target=self._end, args=[asked], daemon=True).start()
                return 0, ""
        raise ValueError(f"the stand-in knows no {words}")

    def _scancel(self, job: Job, words: list[str], *_: object) -> tuple[int, str]:
        options, (number,) = _options(words[1:])
        _signal(self.jobs[int(number)].steps, signal.Signals[f"SIG{options['signal']}"])
        return 0, ""

    def close(self) -> None:
        """End everything that there is of the site."""
        self._listener.close()
        for job in self.jobs.values():
            job.requeue = False
        self._kill()
        for holder in (*(node.holder for node in self.nodes.values()), self._switch):
            holder.kill()
            holder.wait()
        subprocess.run(["rm", "-rf", str(self.folder)], check=True)


def _options(words: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Split a command line into its long options and the rest."""
    options, rest = {}, list(words)
    while rest and rest[0].startswith("--"):
        name, _, value = rest.pop(0).removeprefix("--").partition("=")
        options[name] = value
    return options, rest


def _signal(processes: Sequence[subprocess.Popen[bytes]], number: signal.Signals) -> None:
    for process in processes:
        if process.poll() is None:
            process.send_signal(number)


@contextlib.contextmanager
def a_site(names: Sequence[str], shared: Sequence[Path]) -> Iterator[Site]:
    site = Site(names, shared)
    try:
        yield site
    finally:
        site.close()


def ask(command: str, words: list[str]) -> int:
    """Ask the site to carry out a command, and return its exit code; see `Site`."""
    if command == "srun":
        at = next(i for i, word in enumerate(words) if not word.startswith("--"))
        words.insert(at, json.dumps(dict(os.environ)))
    else:
        words.insert(0, "")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.connect(os.environ[CONTROL])
        asked = json.dumps([command, os.environ.get("SLURM_JOB_ID", "0"), words]).encode()
        socket.send_fds(connection, [asked], [0, 1, 2])
        return int(connection.recv(16) or 1)


if __name__ == "__main__":
    sys.exit(ask(sys.argv[1], sys.argv[2:]))
