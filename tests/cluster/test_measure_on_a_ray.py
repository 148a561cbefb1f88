"""`sgbench plan --measure` on a node of a cluster."""

import json

import pytest
from place import Place
from raylets import Nodes


@pytest.mark.ray
@pytest.mark.slow
def test_a_node_measures_each_loss_with_the_code_that_it_is_sent(place: Place, head: Nodes) -> None:
    said = place.call("plan", "tiny.yaml", "--results", "measured", "--measure", "--address", head.address, slow=0.05)
    head.assert_idle()
    assert said.stdout.count("measured here") == 4
    store = place.folder / "measured"
    assert {path.name for path in store.iterdir()} == {".lock", "packed", "sgbench.json", "times"}
    times = json.loads((store / "times" / "measured.json").read_text())
    steps = {time["spec"]["loss"]: time["seconds"] for time in times if time["kind"] == "step"}
    assert set(steps) == {"l1 + 1.0*sg", "odd_losses:Slow"}
    assert steps["odd_losses:Slow"] > 0.05
    assert {time["metric"] for time in times if time["kind"] == "scoring"} == {None, "psnr_y", "ssim_y"}
    assert "Training and scoring will take about" in said.stderr
