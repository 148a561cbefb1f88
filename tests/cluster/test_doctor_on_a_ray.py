"""`sgbench doctor` of a cluster and of this machine, which Ray's nodes really answer."""

import json

import pytest
from place import Place
from raylets import Nodes

import sgbench

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def test_the_nodes_of_a_cluster_say_what_they_have_and_no_store_is_made(place: Place, head: Nodes) -> None:
    (node,) = json.loads(head.call("doctor", "tiny.yaml", "--results", "asked", "--json").stdout)
    assert node["problems"] == node["lacks"] == []
    facts = node["facts"]
    assert (facts["store"], facts["CPU"], facts["token"]) == (str(place.folder / "asked"), "2", "required")
    assert f"sgbench {sgbench.__version__}" in facts["versions"]
    assert facts["cache"].startswith(f"{place.folder / 'cache'}")
    assert not (place.folder / "asked").exists()


def test_this_machine_is_asked_through_a_ray_of_its_own_which_ends(place: Place) -> None:
    said = place.run("doctor", "tiny.yaml").stdout
    assert said.startswith("this machine ")
    assert "✗" not in said
    place.assert_no_processes()
