"""Questions about what the user told before: whether he did.

A small text model makes up what nobody told: "What is my horse called?", "Your horse is called
Rex." Rules in its instructions hardly help it, and turns that show it an honest answer show it a
manner as well. But what it makes up has no word of what was told; and where the answer follows from
that in other words it knows it: asked whether the answer stands above, it finds Yes likelier.
"""

import re

from text_to_num import alpha2digit

from duplex.mind.thinker import Message

WH = r"(?:who|whom|whose|what|which|where|when|how (?:old|tall|long|far|many|much|often|big|heavy))"
MY = r"(?:my|mine|our|ours)"
# What nobody need have told: advice, what the agent thinks, who it is, how one does it.
ADVICE = r"(?:should|shall|can|could|would|must|(?:do|are|will) you|am i (?:talking|speaking))"
HOW_TO = r"(?:(?:do|does|will|to|if|when|for) (?:i|we|me|us|you))"
# What the user alone knows of himself, where "do I" may as well ask how one does it.
STATE = (
    r"(?:live|work|like|dislike|love|hate|want|prefer|enjoy|own|study|play|drive|collect|teach"
    r"|speak|keep|weigh|come from|have(?! to\b)|have to (?:be|see|meet|go)\b"
    r"|do (?:for|on|in|every)|go (?:on|every|to school))"
)
REMEMBER = r"(?:you (?:still )?(?:know|remember|recall)|(?:tell|remind) me)"
ASKED = re.compile(
    # "what is my boat called", but neither "what can I do with my boat" nor "when my boat ...".
    rf"\b{WH}(?:'s)?\b(?! (?:an?|i|we|you|he|she|they|it)\b)(?!.*\b(?:{ADVICE}|{HOW_TO})\b)"
    rf".*\b{MY}\b"
    # "where did I put it", "how old am I", "where do I live", but not "how long do I boil an egg".
    rf"|\b{WH}(?:'s)?\b.*\b(?:did|have|had|was|were|am) (?:i|we)\b(?! (?:talking|speaking|to)\b)"
    rf"|\b{WH}(?:'s)?\b.*\bdo i {STATE}\b"
    r"|\bwhat do we call our\b"
    # "who comes with me", "the people I work with".
    rf"|\bwho(?:'s)?\b(?!.*\b(?:{ADVICE}|{HOW_TO})\b).*\bme\b"
    rf"|\b(?:man|woman|person|people|company|place|street|city|town) (?:that |where )?i\b"
    rf"(?! {ADVICE}\b)"
    # "do you know where I live", "do you remember the name of my dog".
    rf"|\b{REMEMBER} {WH}\b(?! an?\b)(?!.*\b(?:{ADVICE}|{HOW_TO})\b).*\b(?:i|{MY})\b"
    rf"|\b{REMEMBER} (?:the \w+ of )?my\b",
    re.IGNORECASE,
)
# Letters by which words are the same: "live", "lived".
STEM = 4
# Words that tell nothing.
FUNCTION_WORDS = frozenset(
    "a about am an and any are as at be been but by called can did do does don't for from had has "
    "have haven't he her here him his how i if in information into is it its just know me mine my "
    "name named no not of on one or our out she some sorry tell than that the their them then "
    "there they think this those to told too up us user user's very was we were what when where "
    "which who will with would yes yet you your yours".split()
)
# Behind the question.
CHECK = "? Is the answer above? Answer only Yes or No."
# How much likelier than No is Yes, in nats, where the answer stands above. Of 20 questions, 10 of
# which nobody told, Qwen2.5-Coder-1.5B gives 0.65 to 1.94 where it was told, and -0.24 to 0.76
# where it was not. Nearly all answers of the first kind repeat a word of what was told.
TOLD_NATS = 0.85
# How an answer begins where it does not.
UNTOLD = "You haven't told me"


def asks_what_was_told(messages: list[Message]) -> bool:
    """Whether the user asks for what he alone can have told.

    A note in brackets, of a sound, may answer it together with what was told.
    """
    last = messages[-1]
    is_question = last["role"] == "user" and "[" not in last["content"]
    return is_question and ASKED.search(last["content"]) is not None


def told_words(messages: list[Message]) -> set[str]:
    """Words that were told before the last question, and do not stand in it."""
    asked = {word[:STEM] for word in _words(messages[-1]["content"])}
    told = (word for message in messages[:-1] for word in _words(_told_in(message)))
    return {word for word in told if word[:STEM] not in asked}


def repeats(told: set[str], answer: str) -> bool:
    """Whether a word of the answer is one of these."""
    return not told.isdisjoint(_words(answer))


def _told_in(message: Message) -> str:
    """What a message tells of others than the agent, whose own words are no proof."""
    if message["role"] == "system":
        parts = re.split(r"[.:!?\n]", message["content"])
        return " ".join(part for part in parts if not re.search(r"\byour?\b", part, re.I))
    return message["content"] if message["role"] == "user" else ""


def _words(text: str) -> list[str]:
    """The words that tell something, and numbers as figures."""
    found = re.findall(r"[a-z0-9]+(?:'[a-z]+)?", alpha2digit(text.lower(), "en"))
    return [word for word in found if word not in FUNCTION_WORDS]


def with_check(messages: list[Message]) -> list[Message]:
    """The conversation, in which the user asks last whether the answer to his question is in it."""
    last = messages[-1]
    return [*messages[:-1], last | {"content": last["content"].rstrip(" .?!") + CHECK}]


def is_told(nats: dict[str, float]) -> bool:
    """Whether it was told, by the log-probabilities of the check's first token."""
    if not nats.keys() >= {"Yes", "No"}:
        return True
    return nats["Yes"] - nats["No"] >= TOLD_NATS
