"""Questions about what the user told: which they are, and whether it was told."""

import pytest

from duplex.mind.told import (
    asks_what_was_told,
    is_told,
    repeats,
    told_words,
    with_check,
)


@pytest.mark.parametrize(
    ("said", "asks"),
    [
        ("What is my boat called", True),
        ("And how old is my brother", True),
        ("Do you know where I live", True),
        ("Do you remember the name of my dog", True),
        ("Where did we meet", True),
        ("What did I tell you about it", True),
        ("When do I have to be at the doctor's", True),
        ("Who is coming with me", True),
        ("How long do I boil an egg", False),
        ("Which bus do I take to the airport", False),
        ("What happens if I bring my book back late", False),
        ("Who won the cup when I was born", False),
        ("What is the best way for me to learn French", False),
        ("What is the capital of Spain", False),
        ("When I was a child we had a boat", False),
        ("What should I cook for my guests", False),
        ("What do I need for my cake", False),
        ("Tell me what a good name for my boat is", False),
        ("What do you think of my boat", False),
        ("Who am I talking to", False),
        ("Which animal gives us wool", False),
        ("My boat is called Rex", False),
        ("Tell me a joke", False),
        ("[sound: rain] What is my boat called", False),
    ],
)
def test_questions_about_the_user_are_known(said, asks):
    assert asks_what_was_told([{"role": "user", "content": said}]) is asks


def test_only_the_user_asks():
    assert not asks_what_was_told([{"role": "system", "content": "What is my boat called"}])


def test_the_check_goes_on_where_the_question_ends():
    told = [{"role": "system", "content": "Be kind."}]
    asked = [*told, {"role": "user", "content": "Where do I live?"}]
    [*before, check] = with_check(asked)
    assert before == told and check["role"] == "user"
    assert check["content"].startswith("Where do I live? ") and "Yes or No" in check["content"]
    assert asked[-1]["content"] == "Where do I live?"


@pytest.mark.parametrize(
    ("answer", "is_repeated"),
    [
        ("Your boat is called Rex.", True),
        ("Your boat is called Max.", False),
        ("It is called the boat.", False),
        ("You are three.", True),
        ("I am Duplex.", False),
        ("It waits at pier nine.", True),
        ("How nice.", False),
    ],
)
def test_what_was_told_is_known_by_its_words(answer, is_repeated):
    talk = [
        ("system", "You are Duplex. Boats wait at pier nine."),
        ("user", "My boat is Rex and I am 3"),
        ("assistant", "How nice."),
        ("user", "What is my boat called"),
    ]
    asked = [{"role": role, "content": text} for role, text in talk]
    assert repeats(told_words(asked), answer) is is_repeated


@pytest.mark.parametrize(
    ("nats", "told"),
    [
        ({"Yes": -0.1, "No": -3.0, "The": -4.0}, True),
        ({"Yes": -1.0, "No": -0.9}, False),
        ({"Yes": -1.0, "No": -1.1}, False),
        ({"The": -0.1}, True),
    ],
)
def test_yes_must_be_clearly_likelier(nats, told):
    assert is_told(nats) is told
