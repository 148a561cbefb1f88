import dataclasses
import hashlib

import pytest
import torch
from small_networks import STATE, as_file, files, put

from sgbench.assets.base import MissingWeights, networks_folder
from sgbench.assets.catalogue import NETWORKS
from sgbench.assets.locator import Locator
from sgbench.assets.tensors import fingerprint
from sgbench.core.errors import InputError


class TestSearch:
    def test_the_named_folder_comes_before_torch_hub_before_our_cache(self, places, small):
        locator = Locator(download=False)
        assert locator.find("alexnet") is None
        for place in ("own", "hub", "named"):
            path = put(places[place], small)
            assert locator.find("alexnet") == path
            assert locator.fetch("alexnet") == path

    def test_an_argument_comes_before_the_environment(self, places, small, tmp_path):
        put(places["named"], small)
        path = put(tmp_path / "argument", small)
        assert Locator(tmp_path / "argument").find("alexnet") == path

    def test_a_named_folder_must_exist(self, places, monkeypatch):
        monkeypatch.setenv("SGBENCH_WEIGHTS", "/no/such/folder")
        with pytest.raises(InputError, match=r"'/no/such/folder' \(SGBENCH_WEIGHTS\) does not exist"):
            Locator().find("alexnet")

    def test_an_unknown_network_is_refused(self):
        with pytest.raises(InputError, match="unknown pretrained network 'alexnett': did you mean 'alexnet'"):
            Locator().find("alexnett")

    def test_a_file_with_the_wrong_hash_is_named_with_both_hashes(self, places, small):
        path = put(places["hub"], b"something else")
        with pytest.raises(InputError) as error:
            Locator(download=False).find("alexnet")
        for part in (str(path), hashlib.sha256(b"something else").hexdigest(), NETWORKS.load("alexnet").sha256):
            assert part in str(error.value)

    def test_a_file_that_changes_is_checked_again(self, places, small):
        path = put(places["named"], small)
        Locator().find("alexnet")
        path.write_bytes(small + b"x")
        with pytest.raises(InputError, match="SHA-256"):
            Locator().find("alexnet")

    def test_without_network_the_message_says_what_to_bring_and_where(self, places):
        with pytest.raises(MissingWeights) as error:
            Locator(download=False).load("inception")
        for part in (
            NETWORKS.load("inception").file,
            NETWORKS.load("inception").url,
            "96 MB",
            "SGBENCH_WEIGHTS",
            str(networks_folder()),
        ):
            assert part in str(error.value)

    def test_status_says_where_each_network_is(self, places, small):
        path = put(places["hub"], small)
        put(places["own"], b"broken", NETWORKS.load("inception").file)
        found = {status.name: status for status in Locator().status()}
        assert list(found) == NETWORKS.names()
        assert (found["alexnet"].path, found["alexnet"].problem) == (path, None)
        assert found["inception"].path is None
        assert "SHA-256" in found["inception"].problem
        for name in ("vgg16", "squeezenet"):
            assert (found[name].path, found[name].problem) == (None, None)


class TestDownload:
    def test_lands_in_our_cache_and_tells_its_progress(self, places, small, table, server):
        table("alexnet", url=server["url"] + "/a.pth")
        server["/a.pth"] = (200, {}, small)
        seen = []
        path = Locator(progress=lambda *bytes_: seen.append(bytes_)).fetch("alexnet")
        assert path == places["own"] / NETWORKS.load("alexnet").file
        assert path.read_bytes() == small
        assert seen[-1] == (len(small), len(small))
        assert files(places["own"]) == [NETWORKS.load("alexnet").file]

    def test_a_refusal_leaves_nothing_and_is_told(self, places, small, table, server):
        table("alexnet", url=server["url"] + "/a.pth")
        with pytest.raises(
            MissingWeights, match=r"\(its address cannot be downloaded: the server answers 404 Not Found\): d"
        ):
            Locator().fetch("alexnet")
        assert files(places["own"]) == []

    def test_what_breaks_off_is_told_and_continued(self, places, small, table, server):
        table("alexnet", url=server["url"] + "/a.pth")
        server["/a.pth"] = (200, {"Content-Length": len(small)}, small[:5])
        with pytest.raises(
            MissingWeights, match=rf"\(its address was interrupted after 5 of {len(small)} bytes\): download"
        ):
            Locator().fetch("alexnet")
        assert Locator(download=False).find("alexnet") is None
        assert files(places["own"]) == [f"{NETWORKS.load('alexnet').file}.part"]
        server["/a.pth"] = (206, {}, small[5:])
        assert Locator().fetch("alexnet").read_bytes() == small
        assert files(places["own"]) == [NETWORKS.load("alexnet").file]

    def test_a_wrong_hash_is_refused_and_leaves_nothing(self, places, small, table, server):
        url = table("alexnet", url=server["url"] + "/a.pth").url
        server["/a.pth"] = (200, {}, b"something else")
        received = hashlib.sha256(b"something else").hexdigest()
        with pytest.raises(
            InputError, match=f"'{url}' has the sha256 {received}, but {NETWORKS.load('alexnet').sha256} is expected"
        ):
            Locator().fetch("alexnet")
        assert files(places["own"]) == []

    def test_nothing_is_asked_of_the_network_when_it_is_not_to_be_used(self, places, small, table, server):
        table("alexnet", url=server["url"] + "/a.pth")
        server["/a.pth"] = (200, {}, small)
        with pytest.raises(MissingWeights):
            Locator(download=False).fetch("alexnet")


def test_a_converted_file_is_read_once_and_then_known_by_its_hash(places, table, monkeypatch):
    archive = dataclasses.replace(NETWORKS.load("alexnet").archive, tensors_sha256=fingerprint(STATE))
    table("alexnet", archive=archive)
    path = put(places["own"], as_file(STATE), "alexnet-features.pth")
    assert Locator(download=False).find("alexnet") == path
    with monkeypatch.context() as patch:
        patch.setattr("sgbench.assets.tensors.read", None)
        assert Locator(download=False).find("alexnet") == path
    path.write_bytes(as_file({**STATE, "features.0.bias": torch.tensor([0.25])}))
    with pytest.raises(InputError, match=r"alexnet-features\.pth' has the SHA-256 .* is needed"):
        Locator(download=False).find("alexnet")


def test_both_sources_of_alexnet_give_one_hash(places, table):
    """The usual file holds the classifier as well; what is hashed is what is used."""
    full = as_file({**STATE, "classifier.1.weight": torch.ones(2, 2)})
    archive = dataclasses.replace(NETWORKS.load("alexnet").archive, tensors_sha256=fingerprint(STATE))
    table("alexnet", sha256=hashlib.sha256(full).hexdigest(), archive=archive)
    converted = put(places["own"], as_file(STATE), "alexnet-features.pth")
    first = Locator(download=False).load("alexnet")
    assert first.path == converted
    put(places["named"], full)
    second = Locator(download=False).load("alexnet")
    assert second.path != converted
    assert first == second
