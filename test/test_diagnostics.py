"""What the node says of its troubles: complaints once a minute, statuses that recover."""

from __future__ import annotations

import pytest

pytest.importorskip("diagnostic_msgs.msg", reason="needs ROS")
from diagnostic_msgs.msg import DiagnosticStatus

from radan_ros.ros.diagnostics import KINDS, RATES, STAGES, Complaints, Statistics, assess


def test_a_complaint_is_logged_once_a_minute_with_its_count() -> None:
    complaints = Complaints()
    assert complaints.line("step is 100 bytes", 0.0) == "step is 100 bytes"
    assert [complaints.line(f"step is {k} bytes", 1.0 + k) for k in range(40)] == [None] * 40
    assert complaints.line("encoding 'fancy'", 30.0) == "encoding 'fancy'", "another kind is heard"
    assert complaints.line("step is 7 bytes", 61.0) == "step is 7 bytes (and 40 more since the last such line)"


def test_complaints_of_a_week_fill_no_memory_and_stay_audible() -> None:
    complaints = Complaints()
    for k in range(10 * KINDS):
        assert complaints.line("x" * (k + 1), float(k)) is not None
    assert len(complaints._kinds) <= KINDS
    assert complaints.line("new", 5000.0) == "new"


def test_a_bad_message_is_a_warning_for_a_while_only() -> None:
    import time

    statistics = Statistics()
    assert not statistics.bad_lately(time.monotonic())
    statistics.bad_message("why")
    assert statistics.bad_lately(time.monotonic()) and not statistics.bad_lately(time.monotonic() + 60)
    assert statistics.values()["last_bad_message"] == "why" and statistics.values()["bad"] == "1"


def test_images_a_second_are_those_of_the_last_seconds() -> None:
    statistics = Statistics()
    for second in range(20):
        rates = statistics.rates(100.0 + second)
        statistics.count("received", 30 if second < 10 else 0)
        statistics.counters["processed"] += 15 if second < 10 else 0
        if 2 < second <= 10:
            assert rates == (30.0, 15.0)
    assert rates == (0.0, 0.0), f"nothing came for more than {RATES:g} s"


def test_faces_are_counted_when_they_come_and_go() -> None:
    statistics = Statistics()
    for ids in ({0}, {0, 1}, {1}, {1}, set(), {2}):
        statistics.answered(frozenset(ids), {})
    statistics.forget_faces()
    values = statistics.values()
    assert (values["tracks_new"], values["tracks_lost"], values["faces"]) == ("3", "3", "0")


def test_latencies_are_told_of_stages_that_ran() -> None:
    statistics = Statistics()
    for k in range(1, 101):
        statistics.answered(frozenset(), {"network": k * 1e-3} | ({"rendering": 0.002} if k == 7 else {}))
    values = statistics.values()
    assert values["network_ms_p50"] == "50.50" and float(values["network_ms_p99"]) > 99
    assert values["rendering_ms_p50"] == "2.00" and values["rendered"] == "1"
    assert not any(key.startswith("detection") for key in values) and set(statistics.seconds) == set(STAGES)


@pytest.mark.parametrize(
    ("state", "troubles", "level", "summary"),
    [
        ("active", {}, DiagnosticStatus.OK, "active"),
        ("active", {"bad": "encoding"}, DiagnosticStatus.WARN, "encoding"),
        ("active", {"bad": "encoding", "silence": "no image"}, DiagnosticStatus.WARN, "no image"),
        ("active", {"calibration": "CameraInfo is for"}, DiagnosticStatus.WARN, "CameraInfo is for"),
        ("inactive", {"calibration": "CameraInfo is for"}, DiagnosticStatus.OK, "inactive"),
        ("active", {"stuck": "the worker", "silence": "no image"}, DiagnosticStatus.WARN, "the worker"),
        ("paused", {"stuck": "the worker"}, DiagnosticStatus.WARN, "the worker"),
        ("paused", {"bad": "encoding", "silence": "no image"}, DiagnosticStatus.OK, "paused"),
        ("inactive", {"bad": "encoding"}, DiagnosticStatus.OK, "inactive"),
        ("unconfigured", {"problem": "cannot start"}, DiagnosticStatus.ERROR, "cannot start"),
    ],
)
def test_the_level_tells_who_is_to_look(state: str, troubles: dict[str, str], level: bytes, summary: str) -> None:
    found = assess(state, **{"problem": "", "silence": "", "bad": "", **troubles})
    assert found[0] == level and summary in found[1]
