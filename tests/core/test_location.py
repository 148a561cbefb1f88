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
    ],
)
def test_credentials_in_a_uri_are_refused_and_not_repeated(text):
    with pytest.raises(InputError, match="credentials in it, which would be stored and shown") as refused:
        Location.of(text)
    assert "hunter2" not in str(refused.value)
