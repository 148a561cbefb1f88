"""Every way to write where a store is means what it says, or is refused in one sentence."""

import pytest

from sgbench.core.errors import InputError
from sgbench.core.location import Location

AT = "?endpoint_override=127.0.0.1:9&scheme=http"


@pytest.mark.parametrize(
    ("text", "path", "root"),
    [
        ("s3://bucket", "bucket", "s3://bucket"),
        ("s3://bucket/", "bucket", "s3://bucket"),
        ("s3://bucket/a/b//", "bucket/a/b", "s3://bucket/a/b"),
        ("S3://bucket/a", "bucket/a", "s3://bucket/a"),
        (f"s3://bucket/a/{AT}", "bucket/a", "s3://bucket/a?endpoint_override=127.0.0.1:9&scheme=http"),
        ("s3://bucket/a b", "bucket/a b", "s3://bucket/a%20b"),
        ("s3://bucket/a%20b", "bucket/a b", "s3://bucket/a%20b"),
        ("s3://bucket/a%23b", "bucket/a#b", "s3://bucket/a%23b"),
        ("s3://bucket/50%25", "bucket/50%", "s3://bucket/50%25"),
        ("s3://bucket/a+b=c,d", "bucket/a+b=c,d", "s3://bucket/a+b=c,d"),
        ("s3://bucket/Größe", "bucket/Größe", "s3://bucket/Gr%C3%B6%C3%9Fe"),
        ("gcs://bucket/a?project_id=p", "bucket/a", "gs://bucket/a?project_id=p"),
        ("s3://b%75cket/a", "bucket/a", "s3://bucket/a"),
        ("s3://bucket/a?", "bucket/a", "s3://bucket/a"),
        ("s3://bucket/~/$x-", "bucket/~/$x-", "s3://bucket/~/$x-"),
        ("s3://b/a?scheme=HTTP&endpoint_override=H:80", "b/a", "s3://b/a?endpoint_override=h&scheme=http"),
        ("s3://b/a?scheme=https&endpoint_override=h:443", "b/a", "s3://b/a?endpoint_override=h"),
        ("file:///a/b%20c/", "/a/b c", "/a/b c"),
        ("/a/b/", "/a/b", "/a/b"),
        ("/", "/", "/"),
    ],
)
def test_a_place_has_one_form(text, path, root):
    location = Location.of(text)
    assert (location.path, str(location)) == (path, root)
    assert Location.of(root) == location


@pytest.mark.parametrize(
    ("root", "address"),
    [
        ("/a", "/a/runs/x (1).pt"),
        ("/", "/runs/x (1).pt"),
        ("s3://bucket/a", "s3://bucket/a/runs/x%20(1).pt"),
        (f"s3://bucket/a/{AT}", "s3://bucket/a/runs/x%20(1).pt?endpoint_override=127.0.0.1:9&scheme=http"),
    ],
)
def test_a_name_goes_before_the_options(root, address):
    assert Location.of(root).of_name("runs/x (1).pt") == address


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("s3://", "a bucket and folders with names are needed"),
        ("s3:///a", "a bucket and folders with names are needed"),
        ("s3://bucket/a//b", "a bucket and folders with names are needed"),
        ("s3://bucket/a/../b", "a bucket and folders with names are needed"),
        ("s3://bucket/a%2fb", "a bucket and folders with names are needed"),
        ("s3://bucket/a#b", "a '#' in a URI is written %23"),
        ("s3://bucket/50%", "a '%' in a URI is written %25"),
        ("s3:/bucket/a", "a URI is written s3://bucket/folder, and a folder of this name ./s3:/bucket/a"),
        ("GS:bucket", "a URI is written GS://bucket/folder"),
        ("file:/a", "a URI is written file:///folder"),
        (" s3://bucket/a", "a URI begins with a scheme such as s3"),
        ("s3://bu cket/a", "'bu cket' is no name of a bucket"),
        ("s3://host:9000/bucket", "begins with a bucket; host and port go to ?endpoint_override=HOST:PORT"),
        ("s3://$BUCKET/a", "has the variable $BUCKET, not replaced"),
        ("s3://bucket/${RUN}", "has the variable ${RUN}, not replaced"),
        ("s3://bucket/a?region=$REGION", "has the variable $REGION, not replaced"),
        ("$SCRATCH/results", "has the variable $SCRATCH, not replaced"),
        ("", "is empty; a folder, or a URI such as s3://bucket/folder, is needed"),
        (" ", "is empty; a folder, or a URI such as s3://bucket/folder, is needed"),
        ("s3://bucket/a%0ab", "escapes of control characters or of no character"),
        ("s3://bucket/a%ff", "escapes of control characters or of no character"),
        ("s3://bucket/a\nb", "control characters"),
        ("s3://bucket?endpoint=1", "has the option 'endpoint'; valid: region, scheme, endpoint_override"),
        ("s3://bucket?scheme=ftp", "has scheme=ftp; http or https is needed"),
        ("s3://bucket?endpoint_override=http://host", "has endpoint_override=http://host; a host, or host:port"),
        ("s3://bucket?region=a&region=b", "has an option twice"),
        ("file://host/a", "a file URI is written file:///folder"),
        ("a\0b", "control characters"),
        ("\udcff", "not valid Unicode"),
        ("~nobody-of-this-name/x", "no home folder"),
    ],
)
def test_what_means_nothing_is_refused(text, reason):
    with pytest.raises(InputError) as refused:
        Location.of(text).open()
    assert reason in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        "s3://key:hunter2@bucket/a",
        "s3://hunter2@bucket/a",
        "s3://bucket/a?secret_key=hunter2",
        "s3://bucket/a?access_key=hunter2&x=#",
        "s3://bucket/a?session_token=hunter2",
        "abfs://:hunter2@account/a",
        "nope://user:hunter2@host/a\n",
        "gs://bucket/a?client_secret=hunter2",
        "s3://AKIA:hunter2/with/slashes@bucket/a",
        "s3://AKIA%3Ahunter2@bucket/a",
        "s3://AKIA:hunter2/bucket/a",
        "hdfs://user:hun/ter2@host/a",
        "s3://bucket/a?endpoint_override=key:hunter2@host:9000",
        "s3://bucket/a?endpoint_override=http%3A%2F%2Fkey%3Ahunter2%40host",
        "abfs://container/a?sv=2024&sig=hunter2",
        "https://bucket.s3.amazonaws.com/a?X-Amz-Credential=hunter2",
    ],
)
def test_credentials_in_a_uri_are_refused_and_not_repeated(text):
    with pytest.raises(InputError, match="credentials in it, which would be stored and shown") as refused:
        Location.of(text)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("other", "same"),
    [
        ("s3://bucket/a/?region=eu-west-1&endpoint_override=H:9&scheme=https", True),
        ("S3://bucket/%61?endpoint_override=h:9", True),
        ("s3://bucket/a?endpoint_override=h:9&scheme=http", False),
        ("s3://bucket/a?endpoint_override=h", False),
        ("s3://bucket/a", False),
        ("s3://bucket/A?endpoint_override=h:9", False),
        ("gs://bucket/a?endpoint_override=h:9", False),
    ],
)
def test_spellings_of_one_store_are_the_same(other, same):
    assert Location.of("s3://bucket/a?endpoint_override=h:9").is_same(Location.of(other)) == same


def test_a_folder_whose_name_is_that_of_a_variable_is_used_if_it_is_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "$SCRATCH").mkdir()
    assert Location.of("$SCRATCH").path == str(tmp_path / "$SCRATCH")
