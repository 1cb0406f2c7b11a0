"""What the page makes of a session's events: turns, as tests/test_events.py has them."""

import pytest

from tests.client.page import node

HELLO = [
    {"type": "user_started"},
    {"type": "heard", "text": " hell"},
    {"type": "partial", "text": " Hello, you"},
    {"type": "heard", "text": " low"},
]


@node.needs_node
@pytest.mark.parametrize(
    ("events", "shown"),
    [
        (HELLO[:2], " hell"),
        (HELLO, " Hello, you"),
        ([*HELLO, {"type": "corrected", "text": " hello"}], " hello"),
        (
            [
                *HELLO,
                {"type": "corrected", "text": " hello"},
                {"type": "heard", "text": " again"},
            ],
            " hello again",
        ),
        ([*HELLO, {"type": "user_ended"}, {"type": "partial", "text": " late"}], " Hello, you"),
    ],
)
def test_a_turn_is_shown_as_it_is_heard_best(events, shown):
    assert [turn["now"] for turn in node.run("conversation", events)] == [shown]
