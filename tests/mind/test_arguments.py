"""Arguments that a small model got nearly right."""

import pytest

from duplex.mind.arguments import repaired

TIMER = {
    "name": "set_timer",
    "parameters": {
        "type": "object",
        "properties": {
            "minutes": {"type": "number"},
            "name": {"type": "string"},
            "loud": {"type": "boolean"},
            "tone": {"enum": ["Bell", "Horn"]},
        },
        "required": ["minutes"],
    },
}


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"minutes": 10}, {"minutes": 10}),
        ({"minutes": "10"}, {"minutes": 10}),
        ({"minutes": "2.5 min"}, {"minutes": 2.5}),
        ({"minutes": "soon"}, {"minutes": "soon"}),
        ({"duration": "10"}, {"minutes": 10}),
        ({"minutes": 5, "color": "red"}, {"minutes": 5}),
        ({"minutes": 5, "name": 7}, {"minutes": 5, "name": "7"}),
        (
            {"minutes": 5, "loud": "on", "tone": "bell"},
            {"minutes": 5, "loud": True, "tone": "Bell"},
        ),
        ({}, {}),
    ],
)
def test_arguments_are_as_the_function_wants_them(given, wanted):
    assert repaired(TIMER, given) == wanted


def test_without_a_schema_all_stays():
    assert repaired({"name": "f"}, {"a": "1"}) == {"a": "1"}
