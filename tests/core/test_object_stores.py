"""The client for conditional writes has the address and the rights that pyarrow has by the same URI."""

import pytest

from sgbench.core.errors import InputError
from sgbench.core.object_stores import object_store
from sgbench.core.storage import Storage


@pytest.fixture(autouse=True)
def nobody(monkeypatch, tmp_path):
    """No credentials but those of a test."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return tmp_path / "credentials"


def client(uri):
    storage = Storage(uri)
    return object_store(storage.location, storage._fs)


@pytest.mark.parametrize(
    ("uri", "config", "plain"),
    [
        ("s3://bucket/x?region=eu-west-1", {"region": "eu-west-1", "bucket": "bucket"}, False),
        (
            "s3://bucket/x?region=eu-west-1&endpoint_override=127.0.0.1:9000&scheme=http",
            {"region": "eu-west-1", "endpoint_url_s3": "http://127.0.0.1:9000"},
            True,
        ),
        ("s3://bucket/x?endpoint_override=minio.lab", {"endpoint_url_s3": "https://minio.lab"}, False),
        ("gs://bucket/x?endpoint_override=127.0.0.1:4443&scheme=http", {"base_url": "http://127.0.0.1:4443"}, True),
    ],
)
def test_a_client_has_the_address_of_the_uri(uri, config, plain, monkeypatch):
    if "endpoint_override" in uri:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://elsewhere")
    store = client(uri)
    assert {key: store.config[key] for key in config} == config
    assert (store.client_options["allow_http"] == "true") == plain


def test_keys_of_a_profile_are_those_that_pyarrow_finds(nobody, monkeypatch):
    uri, keys = "s3://bucket/x?region=eu-west-1", "aws_access_key_id = {0}\naws_secret_access_key = {0}\n"
    nobody.write_text(f"[default]\n{keys.format('A')}[lab]\n{keys.format('B')}aws_session_token = C\n")
    assert client(uri).config["access_key_id"] == "A"
    monkeypatch.setenv("AWS_PROFILE", "lab")
    assert (client(uri).config["secret_access_key"], client(uri).config["session_token"]) == ("B", "C")
    for damaged in ("no section", "[lab]\naws_access_key_id", "[lab]\naws_access_key_id = B\n", "\0"):
        nobody.write_text(damaged)
        assert "access_key_id" not in client(uri).config
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "E")
    with pytest.raises(InputError, match=r"'s3://bucket/x\?region=eu-west-1' cannot be used: .*SecretAccessKey"):
        client(uri)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "F")
    assert "access_key_id" not in client(uri).config  # the client reads the environment by itself


def test_another_kind_of_store_is_only_read():
    with pytest.raises(InputError, match="'mock://bucket/x' can only be read; sweeps need a folder, or a URI that "):
        client("mock://bucket/x")
