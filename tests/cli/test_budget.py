"""A budget of hours ends a run at a checkpoint, and every command says so."""

import json
import re
from collections.abc import Callable
from pathlib import Path

Run = Callable[..., tuple[str, str]]

ONE = ("tiny.yaml", "--loss", "l1", "--seeds", "0")
SMALL, LARGE = ("--set", "recipe.max_hours=1e-9"), ("--set", "recipe.max_hours=1")


def test_a_run_that_is_out_of_budget_is_told_by_every_command_and_can_be_scored_and_continued(
    place: Path, run: Run
) -> None:
    said = (
        r"budget of 1e-09 hours used up at step 1 of 3; raise recipe\.max_hours to go on, or "
        r"'sgbench eval (.*/checkpoints/[0-9a-f]{12}/0{11}1\.pt) --test SET' scores the checkpoint as it is"
    )
    for command in (("train",), ("sweep", "--shard", "1/1")):  # the second one ends at once
        _, err = run(*command, *ONE, *SMALL, code=1)
        assert re.search(rf"\n1 run is not done: {said}\.\n", err)
    assert err.startswith("shard 1/1 of tiny: 1 run: 1 out of budget; nothing to do\n")
    (checkpoint,) = re.findall(said, err)

    assert json.loads(run("status", "--json")[0])["sweeps"][0]["out of budget"] == 1
    assert re.search(rf"^tiny: {said}\.$", run("status")[1], re.MULTILINE)

    (planned,) = json.loads(run("plan", *ONE, *SMALL, "--json")[0])
    assert (planned["status"], planned["step"], planned["expected_seconds"]) == ("out of budget", "1/3", None)
    assert re.fullmatch(said, planned["error"])
    assert json.loads(run("plan", *ONE, *LARGE, "--json")[0])[0]["status"] == "resumable"

    out, _ = run("eval", checkpoint, "--test", "few=test", "--metric", "psnr_y", "--json")
    assert json.loads(out)

    _, err = run("train", *ONE, *LARGE)
    assert " done" in err
    assert json.loads(run("plan", *ONE, "--json")[0])[0]["status"] == "done"
    assert not list(place.glob("results/tiny/checkpoints/*"))
