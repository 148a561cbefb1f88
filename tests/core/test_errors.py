import errno
import pickle

import pytest

from sgbench.core.errors import InputError, NotFiniteError, described, explained, in_a_sentence, sentence, unknown


def test_unknown_names_what_was_received_the_nearest_and_everything_valid():
    error = unknown("backbone", "edrs", ["rdn", "edsr"])
    assert isinstance(error, InputError)
    assert str(error) == "unknown backbone 'edrs': did you mean 'edsr'? Valid: edsr, rdn."


@pytest.mark.parametrize(
    ("received", "valid", "meant"),
    [
        ("lpips", ["psnr_y", "lpips_vgg", "lpips_alex"], "'lpips_alex' or 'lpips_vgg'"),
        ("lpips", ["psnr_y", "lpips_alex"], "'lpips_alex'"),
        ("SET", ["Set5", "Set14", "Urban100"], "'Set14' or 'Set5'"),
        ("t", ["table5", "table3", "table2", "table1"], "'table1', 'table2' or 'table3'"),
        ("psnrs", ["psnr_y", "psnr_rgb"], "'psnr_y'"),
    ],
)
def test_unknown_suggests_what_begins_so_before_what_is_near(received, valid, meant):
    assert f"'{received}': did you mean {meant}? Valid: " in str(unknown("name", received, valid))


def test_no_sentence_holds_the_password_of_a_uri():
    text = "401 for url: https://me:swordfish@example.org/a?b=c@d, s3://key:swordfish@bucket"
    assert str(InputError(text)) == "401 for url: https://…@example.org/a?b=c@d, s3://…@bucket"
    assert described(ValueError(text)) == f"ValueError: {InputError(text)}"
    assert sentence("x@y, http://a/b@c and 'http://'@") == "x@y, http://a/b@c and 'http://'@"


def test_unknown_does_not_guess_from_nothing_alike():
    assert str(unknown("loss", "zzz", ["l1", "sg"])) == "unknown loss 'zzz'; valid: l1, sg."
    assert str(unknown("loss", "", ["l1", "sg"])) == "unknown loss ''; valid: l1, sg."


@pytest.mark.parametrize("value", ["NaN", "infinite"])
def test_not_finite_survives_the_way_between_processes(value):
    error = pickle.loads(pickle.dumps(NotFiniteError(812, value)))
    assert (str(error), error.step, error.value) == (f"loss is {value} at step 812", 812, value)


@pytest.mark.parametrize(
    ("said", "number", "reason"),
    [
        (
            "AWS Error ACCESS_DENIED during HeadObject operation: No response body.",
            errno.EACCES,
            "denied",
        ),
        ("AWS Error NO_SUCH_BUCKET during PutObject operation: no (Request ID: 1)", errno.ENXIO, "no such bucket"),
        ("AWS Error NO_SUCH_KEY during CopyObject operation: no", errno.ENOENT, "no such file"),
        ("AWS Error NETWORK_CONNECTION during X operation: curlCode: 7", errno.EHOSTUNREACH, "no connection"),
        (
            "AWS Error UNKNOWN (HTTP status 400) during X operation: Unable to parse ExceptionName: ExpiredToken "
            "Message: The provided token has expired.",
            errno.EACCES,
            "the credentials have expired",
        ),
        ("AWS Error UNKNOWN (HTTP status 503) during X operation: No response body.", errno.EIO, "error of its own"),
        ("AWS Error UNKNOWN (HTTP status 418) during X operation: I am a teapot.", errno.EIO, "I am a teapot"),
        ("Couldn't deserialize thrift", errno.EIO, "Couldn't deserialize thrift"),
    ],
)
def test_an_error_of_arrow_without_a_number_is_explained(said, number, reason):
    found, told = explained(OSError(said))
    assert (found, reason in told) == (number, True)


def test_an_error_of_the_system_is_a_sentence_even_without_a_file_s_name():
    assert in_a_sentence(OSError(errno.ENOSPC, "whatever")) == "No space left on device."
    assert in_a_sentence(OSError("the server is silent")) == "the server is silent."
    assert in_a_sentence(OSError(errno.EACCES, "access is denied", "s3://b/x")) == "'s3://b/x': access is denied."
    assert in_a_sentence(FileNotFoundError()) == "No such file or directory."
