"""The short form of `make soak`."""

from tests.soak.__main__ import soak


def test_soak() -> None:
    report = soak(20, 20240601, clients=12, rate=120, pause=1, kill_core=True, roll=True)
    assert report["failures"] == []
    assert report["lost"] == report["swapped"] == 0
    assert report["recovery"], "no worker was killed"
    assert set(report["kinds"]) >= {"echo", "pipeline", "raw", "packed", "stream", "bad"}
