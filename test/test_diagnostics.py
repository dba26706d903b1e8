"""What the node says of its troubles: complaints once a minute, statuses that recover."""

from __future__ import annotations

import pytest

pytest.importorskip("diagnostic_msgs.msg", reason="needs ROS")
from radan_ros.ros.diagnostics import KINDS, Complaints, Statistics


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
