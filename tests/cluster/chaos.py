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

``make chaos STORE=s3`` keeps the results on an S3 server. Three fifths of its blows kill something, and:

- ``server refusing``, ``server silent``, ``server busy``: for up to a minute, or for longer than a lease, nothing
  listens, nothing answers, or every answer is 503; the sweep goes on, or ends in a sentence;
- ``driver asleep``: SIGSTOP of the command for longer than its lease, while the same command is started again and takes
  over; when the first one wakes, during the second one's runs or after their end, it ends and writes nothing.
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
from outages import OUTAGES, Server, a_server
from place import PATIENCE_SECONDS, Command, Place, a_place, assert_clean, kill, wait_until
from raylets import Nodes, a_cluster

from sgbench.core.lease import LEASE_SECONDS
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

KILLS_ON_S3 = [(victim, joins) for victim in ANYWHERE[:5] for joins in (False, True)] + [("two raylets", True)]
OUTAGES_OF_S3 = [(f"server {how}", joins) for how in OUTAGES for joins in (False, True)]
OUTAGES_OF_S3 += [(f"server {how} for longer than a lease", False) for how in OUTAGES]
SLEEPERS_ON_S3 = [("driver asleep", False), ("driver asleep", True)]

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

OUTAGE_SECONDS = (5.0, 60.0)
"""How long a server is away, at least and at most."""

LONG_OUTAGE_SECONDS = LEASE_SECONDS + 15
"""How long it is away for longer than a lease."""

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
    ended: int = 0
    """The exit code of a command that an outage has ended."""

    @property
    def code(self) -> int:
        """The exit code of a command that it ends, or 0."""
        if self.victim in ("driver", "sweep"):
            return -signal.SIGKILL
        if self.is_outage:
            return self.ended
        if self.victim == "driver asleep":
            return 1
        return int(self.victim == "gcs_server" or (self.victim.startswith("raylet") and not self.joins))

    @property
    def is_outage(self) -> bool:
        """Whether it is the server of the store that is away."""
        return self.victim.startswith("server ")

    @property
    def is_last(self) -> bool:
        """Whether no other blow can follow in the same call of a sweep, because it ends it or may do so."""
        return self.code != 0 or self.is_outage or self.victim == "RPCs" or not self.in_runs

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
        blow.in_runs = blow.in_runs or (blow.code == 0 and not blow.is_outage) or blow.victim == "driver asleep"
    dice.shuffle(blows)
    return blows


def draw_for_s3(count: int, dice: random.Random) -> list[Blow]:
    """Return blows in random order to sweeps of a store on S3: of five, three kill, one is an outage, one a sleeper."""
    fifth = count // 5
    blows = draw(count - 2 * fifth, dice, KILLS_ON_S3)
    blows += draw(fifth, dice, OUTAGES_OF_S3) + draw(fifth, dice, SLEEPERS_ON_S3)
    dice.shuffle(blows)
    return blows


class Storm:
    """Sweeps of one store, which are disturbed until all blows are dealt, and called again until they end well.

    Args:
        place: Where they run.
        dice: What chooses among processes.
        tell: Told of each blow once its sweep has ended.
        server: Of the store; without one, it is on the disk.
    """

    def __init__(
        self, place: Place, dice: random.Random, tell: Callable[[str], object], server: Server | None = None
    ) -> None:
        self.place = place
        self.dice = dice
        self.tell = tell
        self.server = server
        self.store = server.uri("stormy") if server else "stormy"
        self.seed = 0
        self.start_seconds = 10.0
        self.cluster = contextlib.ExitStack()
        self.nodes: Nodes | None = None
        self.members: dict[str, Any] = {}

    def gather(self) -> None:
        """Start the cluster that some sweeps join, in the place of one that is lost."""
        self.cluster.close()
        self.nodes = nodes = self.cluster.enter_context(a_cluster(self.place, **HEALTH))
        self.members = {name: nodes.add(name, num_cpus=1) for name in ("first", "second")}

    def deal(self, blows: Sequence[Blow]) -> int:
        """Deal all blows; one that comes too late, when a sweep has ended, is dealt to another sweep.

        Returns:
            How many seeds were swept, from 0 on.
        """
        waiting, ended = list(blows), list[Blow]()
        while waiting or ended:
            volley = _volley(waiting)
            command, began = self.call((volley or ended)[-1]), time.monotonic()
            if all(blow.in_runs for blow in volley):
                until(command, lambda said: "\nstarted " in said)
                if not ended:  # or it had to wait for the lock of the one that was killed
                    self.start_seconds = time.monotonic() - began
                for each in ended:
                    until(command, lambda said: ": step " in said or "scoring " in said)
                    each.seconds = time.monotonic() - began
                ended.clear()
            dealt = []
            for blow in volley:
                if not self.strike(command, blow):
                    self.start_seconds *= 0.8  # it was measured when the machine was busier
                    break
                dealt.append(blow)
            waiting = [blow for blow in waiting if blow not in volley] + volley[len(dealt) :]
            code, said = command.end(PATIENCE_SECONDS), command.stderr[-3000:]
            for blow in dealt:
                blow.ended = code if blow.is_outage else 0
            fatal = [blow for blow in dealt if blow.code]
            if code == 0 or (fatal and fatal[0].victim == "driver asleep"):
                self.seed += 1
            else:
                unheard = any(blow.victim == "gcs_server" for blow in fatal) and "no Ray cluster can be reached" in said
                assert [2 if unheard else blow.code for blow in fatal] == [code], (
                    f"it ended with {code} after {dealt} of {volley}: {said}"
                )
                ended += fatal
                if code == 1:
                    self.assert_advised(command)
                assert "Traceback" not in said, said
            self.place.assert_no_processes(PATIENCE_SECONDS)
            if self.nodes and any(blow.joins and blow.victim == "gcs_server" for blow in dealt):
                self.gather()
            if self.nodes:
                self.nodes.assert_idle(PATIENCE_SECONDS)
            for blow in dealt:
                self.tell(f"{blow}, while {blow.was}")
        return self.seed

    def assert_advised(self, command: Command) -> None:
        """Check that the last thing that a command says is a sentence on how to go on, and that there is no traceback.

        Where Ray has ended it, a process beside it says so a moment later.
        """

        def advised() -> bool:
            last = command.stderr.rstrip().rpartition("\n")[2]
            return last.startswith("error: ") and "run the same command again" in last

        wait_until(advised, WITNESS_SECONDS, lambda: command.stderr[-3000:])

    def call(self, blow: Blow) -> Command:
        """Start the sweep of a seed, which joins the cluster or not as the blow wants it."""
        address = ("--address", self.nodes.address) if blow.joins and self.nodes else ()
        arguments = ("sweep", "storm.yaml", "--results", self.store, "--seeds", str(self.seed), *address)
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
        if blow.is_outage:
            self.sit_out(command, blow)
        elif blow.victim == "driver asleep":
            self.outlive(command, blow)
        elif blow.victim == "notice":
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
        if not blow.victim.endswith(("stopped", "asleep")):
            kill(victims)
        if blow.victim == "gcs_server" and nodes and self.dice.random() < 0.5:
            time.sleep(5)
            nodes.start_head_anew()
        if nodes and lost:
            self.replace(nodes, lost)
        if not blow.code and not blow.is_outage:
            if blow.victim in ("worker stopped", "driver stopped"):
                until(command, lambda said: said != before)
            else:
                until(command, lambda _: len(command.started()) > begun)
            blow.seconds = time.monotonic() - at
        return True

    def sit_out(self, command: Command, blow: Blow) -> None:
        """Let the server of the store be away, and wait until the sweep goes on or ends."""
        assert self.server is not None
        long, gone = "longer" in blow.victim, time.monotonic()
        seconds = LONG_OUTAGE_SECONDS if long else self.dice.uniform(*OUTAGE_SECONDS)
        with self.server.away(blow.victim.split()[1]):
            until(command, lambda _: time.monotonic() - gone > seconds)
        back, before = time.monotonic(), command.stderr
        blow.was += f", {back - gone:.0f} s"
        until(command, lambda said: said != before)
        blow.seconds = time.monotonic() - back

    def outlive(self, sleeper: Command, blow: Blow) -> None:
        """Let the same command take over from one that is asleep, wake that up, and check that it writes nothing."""
        assert self.server is not None
        _send(signal.SIGSTOP, [sleeper.process.pid])
        asleep, successor = time.monotonic(), self.call(blow)
        successor.wait_until(lambda said: "\nstorm: " in f"\n{said}")
        blow.seconds = time.monotonic() - asleep
        if blow.joins or self.dice.random() < 0.5:  # on a cluster, what the sleeper's runs hold is free when it wakes
            time.sleep(self.dice.uniform(0, self.start_seconds))
        else:
            assert successor.end(PATIENCE_SECONDS) == 0, successor.stderr[-3000:]
        ended, files = successor.process.poll() is not None, self.server.files("stormy")
        _send(signal.SIGCONT, [sleeper.process.pid])
        assert sleeper.end(PATIENCE_SECONDS) == 1, sleeper.stderr[-3000:]
        last = sleeper.stderr.rstrip().rpartition("\n")[2]
        assert last.startswith("error: "), sleeper.stderr[-3000:]
        assert "the lock of" in last, sleeper.stderr[-3000:]
        if ended:
            assert self.server.files("stormy") == files, set(self.server.files("stormy").items()) ^ set(files.items())
        assert successor.end(PATIENCE_SECONDS) == 0, successor.stderr[-3000:]
        blow.was += ", woke " + ("after its successor's end" if ended else "beside its successor")

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
        if victim in ("driver", "driver asleep", "RPCs") or blow.is_outage:
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
        if len(volley) == VOLLEY or volley[-1].is_last:
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
    *,
    on_s3: bool = False,
) -> list[Blow]:
    """Deal blows to sweeps and check what these leave.

    Args:
        folder: An empty one.
        count: How many.
        seed: Of what is hit when; the same seed deals the same blows.
        kinds: See `KINDS`; of a store on S3, see `draw_for_s3`.
        tell: See `Storm`.
        on_s3: Whether the store is on an S3 server.

    Returns:
        The blows as they were dealt.
    """
    dice = random.Random(seed)
    blows = draw_for_s3(count, dice) if on_s3 else draw(count, dice, kinds)
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(a_server()) if on_s3 else None
        place = stack.enter_context(a_place(folder))
        (folder / "storm.yaml").write_text(SWEEP)
        storm = Storm(place, dice, tell, server)
        stack.enter_context(storm.cluster)
        if any(blow.joins for blow in blows):
            storm.gather()
        seeds = storm.deal(blows)
        place.slow_down(0)
        variables = os.environ | place.environment(place.mark)
        subprocess.run(
            [sys.executable, "-c", CALM, str(seeds)], cwd=folder, env=variables, capture_output=True, check=True
        )
        again = place.run("sweep", "storm.yaml", "--seeds", ",".join(map(str, range(seeds))), "--results", storm.store)
        assert again.started() == []
        assert place.outcome(storm.store) == place.outcome("calm")
        store = Store(place.storage(storm.store))
        assert list(verify(store)) == without_weights(store) == []
        assert_clean(place, storm.store)
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
    parser.add_argument("--store", choices=("disk", "s3"), default="disk", help="where the results are")
    parser.add_argument("--only", help="only kinds of blows whose name has these words")
    chosen = parser.parse_args()
    if chosen.only and chosen.store == "s3":
        parser.error("--only is for blows to a store on the disk")
    console, log, seed = rich.console.Console(), Log(chosen.log), chosen.seed
    kinds = [kind for kind in KINDS if not chosen.only or chosen.only in str(Blow(*kind, in_runs=True, share=0))]
    while (left := chosen.kills - len(log.blows)) > 0:
        while seed in log.storms:
            seed += 1
        console.print(f"seed {seed}")
        with tempfile.TemporaryDirectory(prefix="chaos-", ignore_cleanup_errors=True) as scratch:
            on_s3 = chosen.store == "s3"
            log.add(seed, chaos(Path(scratch), min(STORM, left), seed, kinds, console.print, on_s3=on_s3))
    console.print(summary(log.blows))


if __name__ == "__main__":
    main()
