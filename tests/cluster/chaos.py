"""Disturbs sweeps at random moments, calls them again, and compares what they leave with undisturbed ones.

``make chaos`` deals thirty blows, ``make chaos KILLS=300 LOG=blows.jsonl`` three hundred, in storms of ten. Each storm
has a seed, by which it can be repeated, and is added to the log when all that it left has been checked; the same
command goes on from there. A sweep has a Ray of its own or joins a cluster of two nodes and a head. Blows are:

- ``worker``, ``driver``, ``sweep``: SIGKILL of a process that trains or scores a run; of the command; of the command
  and all that works for it, at once;
- ``raylet``: SIGKILL of Ray's process of the machine, or of a node, in whose place another node then comes;
- ``two raylets``: the same of both nodes, at once;
- ``gcs_server``: SIGKILL of the process that knows all nodes; a cluster is lost with it, even if it is started again;
- ``worker stopped``, ``driver stopped``, ``raylet stopped``: SIGSTOP, for longer than Ray waits, and SIGCONT;
- ``notice``: Ray is told that a node will be taken away, like a spot instance, which then happens;
- ``RPCs``: of the calls between Ray's processes some fail, before or after they had their effect.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import rich.console
import rich.table
from place import PATIENCE_SECONDS, Command, Place, a_place, assert_clean, kill, wait_until
from raylets import Nodes, a_cluster

from sgbench.core.storage import Storage
from sgbench.runs.maintenance import without_weights
from sgbench.runs.verification import verify
from sgbench.store import Store

STEPS = 40
SECONDS_A_STEP = 0.1
SWEEP = f"""
grids:
- backbones: [edsr-tiny]
  losses: ["odd_losses:Slow", "odd_losses:Slow + 1.0*sg"]
train: mine=train
tests: [few=test]
metrics: [psnr_y, ssim_y]
recipe: {{steps: {STEPS}, batch: 2, patch: 8}}
checkpoint_seconds: 0.3
"""

CALM = """
import sys, sgbench
sgbench.sweep("storm.yaml", seeds=range(int(sys.argv[1])), results="calm", local=True)
"""
"""What the undisturbed sweeps are: runs one after another, without Ray."""

ANYWHERE = ("driver", "sweep", "worker", "raylet", "gcs_server", "worker stopped", "driver stopped", "raylet stopped")
KINDS = [(victim, False) for victim in (*ANYWHERE, "RPCs")]
KINDS += [(victim, True) for victim in (*ANYWHERE, "RPCs", "two raylets", "notice")]
"""Each kind of blow: what is hit, and whether the sweep joins the cluster."""

WITNESS_SECONDS = 5.0
"""How long what is said of a command that Ray has ended may take."""

IN_RUNS = 0.75
"""The share of blows that wait for the first run; those that a sweep survives always do."""

STORM = 10
"""Blows after which all is checked."""

VOLLEY = 3
"""Most blows that one call of a sweep has to take; a run that dies more often than twice is a failed one."""

HEALTH = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "4000",
    "RAY_health_check_failure_threshold": "4",
    "RAY_memory_monitor_refresh_ms": "0",
}
"""Environment of a Ray that gives up a node that does not answer after twenty seconds, not a minute, and kills nothing
because of the memory that others use."""

STOPPED_SECONDS = 25.0
"""How long a process is stopped."""

NOTICE_SECONDS = 10
"""Between the notice that a node will be taken away and the end of it."""

UNRELIABLE = {
    "RAY_testing_rpc_failure": json.dumps(
        {"*": {"num_failures": -1, "req_failure_prob": 1, "resp_failure_prob": 1, "in_flight_failure_prob": 1}}
    )
}
"""Environment in which a few of a hundred calls fail: before they are sent, after they are answered, or meanwhile."""


@dataclass
class Blow:
    """What is hit, and when."""

    victim: str
    joins: bool
    """Whether the sweep joins the cluster."""
    in_runs: bool
    """Whether its moment is counted from the start of the first run, or else from that of the command."""
    share: float
    """Its moment, as a share of how long the runs take at least, or of how long the last sweep took to start one."""
    was: str = ""
    """What the sweep was doing."""
    seconds: float = 0.0
    """Until a run that was hit began again or, in a sweep that was called again, until the first run went on."""

    @property
    def code(self) -> int:
        """The exit code of a command that it ends, or 0."""
        if self.victim in ("driver", "sweep"):
            return -signal.SIGKILL
        return int(self.victim == "gcs_server" or (self.victim.startswith("raylet") and not self.joins))

    def __str__(self) -> str:
        """What is hit, as tables call it."""
        return f"{self.victim} ({'on a cluster' if self.joins else 'own Ray'})"


def draw(count: int, dice: random.Random, kinds: Sequence[tuple[str, bool]] = KINDS) -> list[Blow]:
    """Return blows in random order, of each kind as many as of the others.

    Args:
        count: How many.
        dice: What is random.
        kinds: See `KINDS`.
    """
    order = dice.sample(kinds, len(kinds))
    blows = [Blow(*order[i % len(order)], in_runs=dice.random() < IN_RUNS, share=dice.random()) for i in range(count)]
    for blow in blows:
        blow.in_runs = blow.in_runs or blow.code == 0
    dice.shuffle(blows)
    return blows


class Storm:
    """Sweeps of one store, which are disturbed until all blows are dealt, and called again until they end well.

    Args:
        place: Where they run.
        dice: What chooses among processes.
        tell: Told of each blow once its sweep has ended.
    """

    def __init__(self, place: Place, dice: random.Random, tell: Callable[[str], object]) -> None:
        self.place = place
        self.dice = dice
        self.tell = tell
        self.start_seconds = 10.0
        self.cluster = contextlib.ExitStack()
        self.nodes: Nodes | None = None
        self.members: dict[str, Any] = {}

    def gather(self) -> None:
        """Start the cluster that some sweeps join, in the place of one that is lost."""
        self.cluster.close()
        self.nodes = nodes = self.cluster.enter_context(a_cluster(self.place, **HEALTH))
        self.members = {name: nodes.add(name, num_cpus=1) for name in ("first", "second")}

    def deal(self, blows: Sequence[Blow], results: str) -> int:
        """Deal all blows; one that comes too late, when a sweep has ended, is dealt to another sweep.

        Returns:
            How many seeds were swept, from 0 on.
        """
        waiting, ended, seed = list(blows), list[Blow](), 0
        while waiting or ended:
            volley = _volley(waiting)
            command, began = self.call(results, seed, (volley or ended)[-1]), time.monotonic()
            if all(blow.in_runs for blow in volley):
                until(command, lambda said: "\nstarted " in said)
                self.start_seconds = time.monotonic() - began
                for each in ended:
                    until(command, lambda said: ": step " in said or "scoring " in said)
                    each.seconds = time.monotonic() - began
                ended.clear()
            dealt = []
            for blow in volley:
                if not self.strike(command, blow):
                    break
                dealt.append(blow)
            waiting = [blow for blow in waiting if blow not in volley] + volley[len(dealt) :]
            fatal = [blow for blow in dealt if blow.code]
            code, said = command.end(PATIENCE_SECONDS), command.stderr[-3000:]
            if code == 0:
                seed += 1
            else:
                unheard = any(blow.victim == "gcs_server" for blow in fatal) and "no Ray cluster can be reached" in said
                assert [2 if unheard else blow.code for blow in fatal] == [code], (
                    f"it ended with {code} after {dealt} of {volley}: {said}"
                )
                ended += fatal
            if code == 1:
                self.assert_advised(command)
            self.place.assert_no_processes(PATIENCE_SECONDS)
            if self.nodes and any(blow.joins and blow.victim == "gcs_server" for blow in dealt):
                self.gather()
            if self.nodes:
                self.nodes.assert_idle(PATIENCE_SECONDS)
            for blow in dealt:
                self.tell(f"{blow}, while {blow.was}")
        return seed

    def assert_advised(self, command: Command) -> None:
        """Check that the last thing that a command says is a sentence on how to go on, and that there is no traceback.

        Where Ray has ended it, a process beside it says so a moment later.
        """

        def advised() -> bool:
            last = command.stderr.rstrip().rpartition("\n")[2]
            return last.startswith("error: ") and "run the same command again" in last

        wait_until(advised, WITNESS_SECONDS, lambda: command.stderr[-3000:])
        assert "Traceback" not in command.stderr, command.stderr[-3000:]

    def call(self, results: str, seed: int, blow: Blow) -> Command:
        """Start the sweep of a seed, which joins the cluster or not as the blow wants it."""
        address = ("--address", self.nodes.address) if blow.joins and self.nodes else ()
        arguments = ("sweep", "storm.yaml", "--results", results, "--seeds", str(seed), *address)
        unreliable = UNRELIABLE if blow.victim == "RPCs" else {}
        return self.place.start(*arguments, slow=SECONDS_A_STEP, **HEALTH, **unreliable)

    def strike(self, command: Command, blow: Blow) -> bool:
        """Wait for the moment and strike; return whether it came in time."""
        time.sleep(blow.share * (STEPS * SECONDS_A_STEP if blow.in_runs else self.start_seconds))
        victims = self.victims(command, blow)
        if not victims or command.process.poll() is not None:
            return False
        blow.was, begun, at = doing(command.stderr), len(command.started()), time.monotonic()
        nodes = self.nodes if blow.joins else None
        lost = [name for name, node in self.members.items() if nodes and nodes.raylet(node) in victims]
        if blow.victim == "RPCs":
            return True
        if blow.victim == "notice":
            assert nodes is not None
            nodes.give_notice(self.members[lost[0]], NOTICE_SECONDS)
            self.members["next"] = nodes.add("next", num_cpus=1)
            until(command, lambda _: len(command.started()) > begun or time.monotonic() - at > NOTICE_SECONDS)
        elif blow.victim.endswith("stopped"):
            _send(signal.SIGSTOP, victims)
            if lost and nodes:
                self.members["next"] = nodes.add("next", num_cpus=1)
            until(command, lambda _: time.monotonic() - at > (PATIENCE_SECONDS if blow.code else STOPPED_SECONDS))
            _send(signal.SIGCONT, victims)
            at, before = time.monotonic(), command.stderr
        if blow.victim == "sweep":
            command.signal_group(signal.SIGKILL)
        if not blow.victim.endswith("stopped"):
            kill(victims)
        if blow.victim == "gcs_server" and nodes and self.dice.random() < 0.5:
            time.sleep(5)
            nodes.start_head_anew()
        if nodes and lost:
            self.replace(nodes, lost)
        if not blow.code:
            if blow.victim in ("worker stopped", "driver stopped"):
                until(command, lambda said: said != before)
            else:
                until(command, lambda _: len(command.started()) > begun)
            blow.seconds = time.monotonic() - at
        return True

    def replace(self, nodes: Nodes, lost: Iterable[str]) -> None:
        """Have nodes come in the place of those that are lost, as far as none has come yet."""
        for name in lost:
            nodes.remove(self.members.pop(name))
            self.members[name] = self.members.pop("next") if "next" in self.members else nodes.add(name, num_cpus=1)

    def victims(self, command: Command, blow: Blow) -> list[int]:
        """Return the processes to be hit."""
        nodes = self.nodes if blow.joins else None
        victim = blow.victim.removesuffix(" stopped")
        workers = (nodes or self.place).processes("ray::ImplicitFunc")
        if victim in ("driver", "RPCs"):
            return [command.process.pid]
        if victim == "sweep":
            return [command.process.pid, *workers]
        if victim == "worker":
            choice = workers
        elif victim == "gcs_server" or not nodes:
            choice = (nodes or self.place).processes({"raylet": "raylet/raylet"}.get(victim, "gcs/gcs_server"))
        else:
            choice = [nodes.raylet(node) for node in self.members.values()]
            if victim == "two raylets":
                return choice
        return [self.dice.choice(choice)] if choice else []


def _volley(waiting: Sequence[Blow]) -> list[Blow]:
    """Return the blows that the next call takes, one after another; only the last may end it."""
    volley = list(waiting[:1])
    for blow in waiting[1:]:
        if len(volley) == VOLLEY or volley[-1].code or not volley[-1].in_runs or volley[-1].victim == "RPCs":
            break
        if blow.joins == volley[0].joins and blow.in_runs and blow.victim != "RPCs":
            volley.append(blow)
    return volley


def _send(number: int, processes: Iterable[int]) -> None:
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, number)


def until(command: Command, condition: Callable[[str], bool]) -> None:
    """Wait until something holds of what a command has said, or it has ended."""

    def ready() -> bool:
        return condition(command.stderr) or command.process.poll() is not None

    wait_until(ready, PATIENCE_SECONDS, lambda: command.stderr[-2000:])


def doing(said: str) -> str:
    """Return what a sweep is doing, by what it has said."""
    if "\nstarted " not in said:
        return "starting"
    return "scoring" if said.splitlines()[-1].startswith(("scoring ", "done ")) else "training"


def chaos(
    folder: Path,
    count: int,
    seed: int,
    kinds: Sequence[tuple[str, bool]] = KINDS,
    tell: Callable[[str], object] = print,
) -> list[Blow]:
    """Deal blows to sweeps and check what these leave.

    Args:
        folder: An empty one.
        count: How many.
        seed: Of what is hit when; the same seed deals the same blows.
        kinds: See `KINDS`.
        tell: See `Storm`.

    Returns:
        The blows as they were dealt.
    """
    dice = random.Random(seed)
    blows = draw(count, dice, kinds)
    with contextlib.ExitStack() as stack:
        place = stack.enter_context(a_place(folder))
        (folder / "storm.yaml").write_text(SWEEP)
        storm = Storm(place, dice, tell)
        stack.enter_context(storm.cluster)
        if any(blow.joins for blow in blows):
            storm.gather()
        seeds = storm.deal(blows, "stormy")
        place.slow_down(0)
        variables = os.environ | place.environment(place.mark)
        subprocess.run(
            [sys.executable, "-c", CALM, str(seeds)], cwd=folder, env=variables, capture_output=True, check=True
        )
        again = place.run("sweep", "storm.yaml", "--seeds", ",".join(map(str, range(seeds))), "--results", "stormy")
        assert again.started() == []
        assert place.outcome("stormy") == place.outcome("calm")
        store = Store(Storage(str(folder / "stormy")))
        assert list(verify(store)) == without_weights(store) == []
        assert_clean(place, "stormy")
    return blows


def bound(count: int) -> float:
    """Return the largest share of blows that may lose something, if none of so many did, with 95% confidence."""
    return float(1 - 0.05 ** (1 / count))


def summary(blows: Sequence[Blow]) -> rich.table.Table:
    """Return a table of what was hit when, how long it took to go on, and what that proves."""
    said = f"{len(blows)} blows, no loss: with 95% confidence fewer than {bound(len(blows)):.1%} of blows lose anything"
    table = rich.table.Table(caption=said)
    for heading in ("blow", "times", "while the sweep was", "s until it went on: median", "longest"):
        table.add_column(heading)
    for kind in sorted(set(map(str, blows))):
        alike = [blow for blow in blows if str(blow) == kind]
        moments = ", ".join(f"{was} {count}" for was, count in sorted(Counter(blow.was for blow in alike).items()))
        seconds = [blow.seconds for blow in alike]
        table.add_row(kind, str(len(alike)), moments, f"{statistics.median(seconds):.1f}", f"{max(seconds):.1f}")
    return table


class Log:
    """The blows of all storms that were checked, of each storm under its seed, in a file of a line each.

    Args:
        path: The file; without one nothing is kept.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        lines = path.read_text().splitlines() if path and path.exists() else []
        self.storms = {each["seed"]: [Blow(**blow) for blow in each["blows"]] for each in map(json.loads, lines)}

    @property
    def blows(self) -> list[Blow]:
        return [blow for storm in self.storms.values() for blow in storm]

    def add(self, seed: int, blows: list[Blow]) -> None:
        self.storms[seed] = blows
        if self._path:
            with self._path.open("a") as file:
                file.write(json.dumps({"seed": seed, "blows": list(map(asdict, blows))}) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30, help="blows, those in the log included")
    parser.add_argument("--seed", type=int, default=1, help="of the first storm; the next has the next one")
    parser.add_argument("--log", type=Path, help="file of blows, to which each storm is added")
    parser.add_argument("--only", help="only kinds of blows whose name has these words")
    chosen = parser.parse_args()
    console, log, seed = rich.console.Console(), Log(chosen.log), chosen.seed
    kinds = [kind for kind in KINDS if not chosen.only or chosen.only in str(Blow(*kind, in_runs=True, share=0))]
    while (left := chosen.kills - len(log.blows)) > 0:
        while seed in log.storms:
            seed += 1
        console.print(f"seed {seed}")
        with tempfile.TemporaryDirectory(prefix="chaos-", ignore_cleanup_errors=True) as scratch:
            log.add(seed, chaos(Path(scratch), min(STORM, left), seed, kinds, console.print))
    console.print(summary(log.blows))


if __name__ == "__main__":
    main()
