"""`sgbench plan --measure` on a node of a cluster."""

import json
from importlib.metadata import version

import pytest
from place import Place
from raylets import Nodes


@pytest.mark.ray
@pytest.mark.slow
def test_a_node_measures_each_loss_with_the_code_that_it_is_sent(
    place: Place, head: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = {
        "theirs.py": "FACTOR = 1.0\n",
        "theirs-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n",
        "theirs-1.0.dist-info/RECORD": "theirs.py,,\ntheirs-1.0.dist-info/METADATA,,\n",
    }
    for name, text in installed.items():
        (path := place.folder / "site" / name).parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.syspath_prepend(place.folder / "site")
    assert version("theirs") == "1.0"
    (place.folder / "of_theirs.py").write_text(
        "import odd_losses, theirs\n\nclass Slow(odd_losses.Slow):\n    def forward(self, sr, hr, *, step):\n"
        "        return theirs.FACTOR * super().forward(sr, hr, step=step)\n"
    )
    losses = ("--loss", "l1 + 1.0*sg", "--loss", "of_theirs:Slow")
    plan = ("plan", "tiny.yaml", *losses, "--results", "measured", "--measure", "--address", head.address)
    refused = place.call(*plan, code=2).stderr
    assert "theirs is not installed, and 1.0 on this machine: send it with --with theirs, or install the" in refused
    said = place.call(*plan, "--with", "theirs", slow=0.05)
    head.assert_idle()
    assert said.stdout.count("measured here") == 4
    store = place.folder / "measured"
    assert {path.name for path in store.iterdir()} == {".lock", "packed", "sgbench.json", "times"}
    times = json.loads((store / "times" / "measured.json").read_text())
    steps = {time["spec"]["loss"]: time["seconds"] for time in times if time["kind"] == "step"}
    assert set(steps) == {"l1 + 1.0*sg", "of_theirs:Slow"}
    assert steps["of_theirs:Slow"] > 0.05
    assert {time["metric"] for time in times if time["kind"] == "scoring"} == {None, "psnr_y", "ssim_y"}
    assert "Training and scoring will take about" in said.stderr
