"""In a bucket the newest run has the workdir, at once; the one before it finds out and leaves it alone."""

import json

from jaxft.owner import Owner
from jaxft.paths import open_path


def _owner():
    return Owner(open_path("gs://bucket/run/.lock"))


def test_the_newest_has_it_at_once_and_is_told_from_whom_it_took_it(bucket):
    first, second = _owner(), _owner()
    first.acquire()
    assert first.is_ours()
    assert first.before == ""
    second.acquire()  # whether the first one was killed or still runs
    record = json.loads(bucket.read("run/.lock"))
    assert second.is_ours()
    assert not first.is_ours()
    assert first.lost
    assert second.before.startswith(f"taking over gs://bucket/run from process {record['pid']} of {record['host']}, started ")


def test_one_that_ended_leaves_it_free(bucket):
    first, second = _owner(), _owner()
    first.acquire()
    first.release()
    second.acquire()
    assert second.before == ""


def test_one_that_lost_it_does_not_call_it_free(bucket):
    first, second = _owner(), _owner()
    first.acquire()
    second.acquire()
    kept = bucket.read("run/.lock")
    first.release()
    assert bucket.read("run/.lock") == kept
    assert second.is_ours()


def test_while_the_bucket_cannot_be_reached_it_is_ours_still(bucket):
    owner = _owner()
    owner.acquire()
    for status in (403, 404):
        bucket.fault = lambda method, name, status=status: status
        assert owner.is_ours()
        owner.release()
    bucket.fault = lambda method, name: 0
    bucket.write("run/.lock", b"half a l")
    assert owner.is_ours()


def test_a_damaged_name_is_written_over(bucket):
    bucket.write("run/.lock", b"half a l")
    owner = _owner()
    owner.acquire()
    assert owner.is_ours()
    assert owner.before == ""
