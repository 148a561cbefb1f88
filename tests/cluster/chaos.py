"""Kills sweeps at random moments, does them again, and holds what they leave against sweeps that nobody disturbed.

``make chaos`` does so thirty times, ``python tests/cluster/chaos.py --kills 4 --seed 7`` fewer times. A sweep has a Ray
of its own or joins a cluster of several raylets. What is killed, with SIGKILL:

- ``worker``: a process that trains or scores a run;
- ``driver``: the command;
- ``raylet``: Ray's process of the machine, or of a node of the cluster, in whose place another node then comes;
- ``sweep``: the command and all that works for it, at once.
"""

import argparse
import contextlib
import random
import signal
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

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

VICTIMS = ("driver", "sweep", "worker", "raylet")

IN_RUNS = 0.75
"""The share of blows that wait for the first run; those that a sweep survives always do."""


@dataclass
class Blow:
    """What is killed, and when."""

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
    """Until a run that was killed began again or, in a sweep that was called again, until the first run went on."""

    @property
    def fatal(self) -> bool:
        """Whether the command ends."""
        return self.victim in ("driver", "sweep") or (self.victim == "raylet" and not self.joins)

    def __str__(self) -> str:
        """What is killed, as tables call it."""
        return f"{self.victim} ({'on a cluster' if self.joins else 'own Ray'})"


def draw(count: int, dice: random.Random, *, alone: bool) -> list[Blow]:
    """Return blows in random order, of each kind as many as of the others.

    Args:
        count: How many.
        dice: What is random.
        alone: Whether no sweep joins a cluster.
    """
    kinds = [(victim, joins) for joins in ((False,) if alone else (False, True)) for victim in VICTIMS]
    blows = [Blow(*kinds[i % len(kinds)], in_runs=dice.random() < IN_RUNS, share=dice.random()) for i in range(count)]
    for blow in blows:
        blow.in_runs = blow.in_runs or not blow.fatal
    dice.shuffle(blows)
    return blows


class Storm:
    """Sweeps of one store, which are killed until all blows are dealt, and called again until they end well.

    Args:
        place: Where they run.
        nodes: The cluster that some of them join.
        dice: What chooses among processes.
        tell: Told of each blow once its sweep has ended.
    """

    def __init__(self, place: Place, nodes: Nodes | None, dice: random.Random, tell: Callable[[str], object]) -> None:
        self.place = place
        self.nodes = nodes
        self.dice = dice
        self.tell = tell
        self.start_seconds = 10.0
        self.members = {name: nodes.add(name, num_cpus=1) for name in ("first", "second")} if nodes else {}

    def deal(self, blows: Sequence[Blow], results: str) -> int:
        """Deal all blows; one that comes too late, when a sweep has ended, is dealt to another sweep.

        Returns:
            How many seeds were swept, from 0 on.
        """
        waiting, dealt, seed = list(blows), list[Blow](), 0
        while waiting or dealt:
            blow = waiting.pop(0) if waiting else None
            command, began = self.call(results, seed, joins=(blow or dealt[-1]).joins), time.monotonic()
            if blow is None or blow.in_runs:
                until(command, lambda said: "\nstarted " in said)
                self.start_seconds = time.monotonic() - began
                for each in dealt:
                    until(command, lambda said: ": step " in said or "scoring " in said)
                    each.seconds = time.monotonic() - began
                dealt.clear()
            if blow and not self.strike(command, blow):
                waiting.append(blow)
            if command.end() == 0:
                seed += 1
            else:
                assert blow is not None, f"undisturbed it failed: {command.stderr[-2000:]}"
                assert blow.was, f"undisturbed it failed: {command.stderr[-2000:]}"
                assert blow.fatal, f"it did not survive the loss of its {blow}: {command.stderr[-2000:]}"
                dealt.append(blow)
            self.place.assert_no_processes(PATIENCE_SECONDS)
            if self.nodes:
                self.nodes.assert_idle(PATIENCE_SECONDS)
            if blow and blow.was:
                self.tell(f"killed: {blow}, while {blow.was}")
        return seed

    def call(self, results: str, seed: int, *, joins: bool) -> Command:
        """Start the sweep of a seed."""
        address = ("--address", self.nodes.address) if joins and self.nodes else ()
        arguments = ("sweep", "storm.yaml", "--results", results, "--seeds", str(seed), *address)
        return self.place.start(*arguments, slow=SECONDS_A_STEP)

    def strike(self, command: Command, blow: Blow) -> bool:
        """Wait for the moment and kill; return whether it came in time."""
        time.sleep(blow.share * (STEPS * SECONDS_A_STEP if blow.in_runs else self.start_seconds))
        victims = self.victims(command, blow)
        if not victims or command.process.poll() is not None:
            return False
        blow.was, begun, at = doing(command.stderr), len(command.started()), time.monotonic()
        if blow.victim == "sweep":
            command.signal_group(signal.SIGKILL)
        kill(victims)
        if not blow.fatal:
            if self.nodes and blow.victim == "raylet":
                self.replace(self.nodes, *victims)
            until(command, lambda _: len(command.started()) > begun)
            blow.seconds = time.monotonic() - at
        return True

    def replace(self, nodes: Nodes, raylet: int) -> None:
        """Have a node come in the place of the one whose raylet was killed."""
        (name,) = (name for name, node in self.members.items() if nodes.raylet(node) == raylet)
        nodes.remove(self.members[name])
        self.members[name] = nodes.add(name, num_cpus=1)

    def victims(self, command: Command, blow: Blow) -> list[int]:
        """Return the processes to be killed."""
        nodes = self.nodes if blow.joins else None
        workers = (nodes or self.place).processes("ray::ImplicitFunc")
        if blow.victim == "driver":
            return [command.process.pid]
        if blow.victim == "sweep":
            return [command.process.pid, *workers]
        if blow.victim == "worker":
            choice = workers
        elif nodes:
            choice = [nodes.raylet(node) for node in self.members.values()]
        else:
            choice = self.place.processes("raylet/raylet")
        return [self.dice.choice(choice)] if choice else []


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
    folder: Path, count: int, seed: int, *, alone: bool = False, tell: Callable[[str], object] = print
) -> list[Blow]:
    """Deal blows to sweeps and check what these leave.

    Args:
        folder: An empty one.
        count: How many.
        seed: Of what is killed when; the same seed deals the same blows.
        alone: See `draw`.
        tell: See `Storm`.

    Returns:
        The blows as they were dealt.
    """
    dice = random.Random(seed)
    blows = draw(count, dice, alone=alone)
    with contextlib.ExitStack() as stack:
        place = stack.enter_context(a_place(folder))
        (folder / "storm.yaml").write_text(SWEEP)
        nodes = None if alone else stack.enter_context(a_cluster(place))
        seeds = Storm(place, nodes, dice, tell).deal(blows, "stormy")
        sweep = ("sweep", "storm.yaml", "--seeds", ",".join(map(str, range(seeds))))
        place.run(*sweep, "--results", "calm")
        again = place.run(*sweep, "--results", "stormy")
        assert again.started() == []
        assert place.outcome("stormy") == place.outcome("calm")
        store = Store(Storage(str(folder / "stormy")))
        assert list(verify(store)) == without_weights(store) == []
        assert_clean(place, "stormy")
    return blows


def summary(blows: Sequence[Blow]) -> rich.table.Table:
    """Return a table of what was killed when, and how long it took to go on."""
    table = rich.table.Table("killed", "times", "while it was", "s until it went on: median", "longest")
    for kind in sorted(set(map(str, blows))):
        alike = [blow for blow in blows if str(blow) == kind]
        moments = ", ".join(f"{was} {count}" for was, count in sorted(Counter(blow.was for blow in alike).items()))
        seconds = [blow.seconds for blow in alike]
        table.add_row(kind, str(len(alike)), moments, f"{statistics.median(seconds):.1f}", f"{max(seconds):.1f}")
    return table


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    parser.add_argument("--alone", action="store_true", help="no sweep joins a cluster")
    chosen = parser.parse_args()
    console = rich.console.Console()
    console.print(f"seed {chosen.seed}")
    with tempfile.TemporaryDirectory(prefix="chaos-") as scratch:
        console.print(summary(chaos(Path(scratch), chosen.kills, chosen.seed, alone=chosen.alone, tell=console.print)))
