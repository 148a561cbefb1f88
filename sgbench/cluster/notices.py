"""Passes on to Ray that this machine will be taken away, which nothing else does on clouds and in Kubernetes.

A program of its own, for the files in ``clusters/``, that runs beside a worker's Ray::

    python -m sgbench.cluster.notices aws   # watch for the end of a spot instance, until it comes or Ray ends
    python -m sgbench.cluster.notices gcp
    python -m sgbench.cluster.notices now   # the end has been announced: wait until the node's runs have left

The runs of the node write a checkpoint and move to others (`sgbench.cluster.trial`).
"""

import argparse
import datetime
import json
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence

from sgbench.cluster.ray_internals import Raylet, announce_end, is_alive, own_raylets

LOOK_SECONDS = 2.0
"""Between two looks."""

ANSWER_SECONDS = 2.0
"""How long a cloud's metadata service may take to answer."""

GCP_SECONDS = 30.0
"""From the notice of Compute Engine to the end: https://cloud.google.com/compute/docs/instances/spot."""

_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def aws(service: str = "http://169.254.169.254") -> float | None:
    """Return in how many seconds EC2 takes this spot instance away, if it has said so.

    Source: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html.

    Args:
        service: Where the metadata service of the instance is.
    """
    token = _asked(f"{service}/latest/api/token", {"X-aws-ec2-metadata-token-ttl-seconds": "60"}, "PUT")
    try:
        notice = _asked(f"{service}/latest/meta-data/spot/instance-action", {"X-aws-ec2-metadata-token": token})
    except urllib.error.HTTPError as error:
        if error.code == 404:  # as long as there is none
            return None
        raise
    end = datetime.datetime.fromisoformat(json.loads(notice)["time"])
    return (end - datetime.datetime.now(datetime.UTC)).total_seconds()


def gcp(service: str = "http://metadata.google.internal") -> float | None:
    """Do as `aws` does, for Compute Engine.

    Source: https://cloud.google.com/compute/docs/instances/create-use-spot.
    """
    said = _asked(f"{service}/computeMetadata/v1/instance/preempted", {"Metadata-Flavor": "Google"})
    return GCP_SECONDS if said == "TRUE" else None


def _asked(url: str, headers: dict[str, str], method: str = "GET") -> str:
    request = urllib.request.Request(url, headers=headers, method=method)
    with _OPENER.open(request, timeout=ANSWER_SECONDS) as answer:
        return str(answer.read().decode()).strip()


def watch(notice: Callable[[], float | None], raylets: Sequence[Raylet]) -> None:
    """Wait until this machine's end is announced and pass that on, or until none of its raylets is left.

    Args:
        notice: `aws` or `gcp`.
        raylets: The nodes of this machine.
    """
    trouble = ""
    while left := [each for each in raylets if is_alive(each.process)]:
        try:
            seconds = notice()
        except Exception as error:  # whatever it is, the next answer may be right
            seconds, trouble = None, _say_once(f"no answer, asking on: {error}", trouble)
        if seconds is not None:
            _say_once(f"this machine ends in {seconds:.0f} s")
            leave(left, max(seconds, 0))
            break
        time.sleep(LOOK_SECONDS)


def leave(raylets: Sequence[Raylet], seconds: float) -> None:
    """Announce the end of nodes, and wait until their runs have left or the time is over.

    Args:
        raylets: The nodes.
        seconds: Until this machine ends.
    """
    end, announced, trouble = time.monotonic() + seconds, set[str](), ""
    while left := [each for each in raylets if is_alive(each.process)]:
        for each in left:
            if each.node not in announced:
                try:
                    announce_end(each, end - time.monotonic())
                    announced.add(each.node)
                except ConnectionError as error:
                    trouble = _say_once(f"not announced, trying again: {error}", trouble)
        if time.monotonic() >= end:
            break
        time.sleep(0.2)


def _say_once(line: str, last: str = "") -> str:
    """Say something unless it was the last that was said, and return it."""
    if line != last:
        sys.stderr.write(f"{datetime.datetime.now(datetime.UTC):%H:%M:%S} {line}\n")
        sys.stderr.flush()
    return line


def main(words: Sequence[str]) -> None:
    """Run the program.

    Args:
        words: Its command line.
    """
    parser = argparse.ArgumentParser("python -m sgbench.cluster.notices", description=__doc__)
    parser.add_argument("what", choices=["aws", "gcp", "now"])
    parser.add_argument("--seconds", type=float, default=20.0, help="with 'now': until this machine ends")
    given = parser.parse_args(words)
    if given.what == "now":
        leave(own_raylets(), given.seconds)
    else:
        watch({"aws": aws, "gcp": gcp}[given.what], own_raylets())


if __name__ == "__main__":
    main(sys.argv[1:])
