"""Questions about what the user told before: whether he did, before anything is answered.

A small text model makes up what nobody told: "What is my horse called?", "Your horse is called
Rex." Rules in its instructions hardly help it, and turns that show it an honest answer show it a
manner as well. But it knows: asked whether the answer stands above, it finds Yes likelier where it
does.
"""

import re

from duplex.mind.thinker import Message

WH = r"(?:who|whom|whose|what|which|where|when|how (?:old|tall|long|far|many|much|often|big|heavy))"
# The user, and his own: what "we do" people do, what "we did" the user did.
ME = r"(?:i|me|my|mine|our|ours|(?:did|were|have|had) we)"
# What nobody need have told: advice, what the agent thinks, and who it is.
ADVICE = r"(?:should|shall|can|could|would|must|(?:do|are|will) you|am i (?:talking|speaking))"
REMEMBER = r"(?:you (?:still )?(?:know|remember|recall)|(?:tell|remind) me)"
ASKED = re.compile(
    # "which city do I live in", but neither "when I was a child" nor "what can I cook".
    rf"\b{WH}(?:'s)?\b(?! (?:i|we|you|he|she|they|it)\b)(?!(?: \S+){{,2}} {ADVICE}\b)"
    rf".*\b{ME}\b"
    # "do you know where I live", "do you remember the name of my dog".
    rf"|\b{REMEMBER} {WH}\b(?!.*\b{ADVICE}\b).*\b{ME}\b"
    rf"|\b{REMEMBER} (?:the \w+ of )?my\b",
    re.IGNORECASE,
)
# Behind the question.
CHECK = "? Is the answer above? Answer only Yes or No."
# How much likelier than No is Yes, in nats, where the answer stands above. Of 20 questions, 10 of
# which nobody told, Qwen2.5-Coder-1.5B gives 0.82 to 1.94 where it was told, but once 0.65, and
# -0.24 to 0.55 where it was not, but once 0.76.
TOLD_NATS = 0.7
# How an answer begins where it does not.
UNTOLD = "You haven't told me"


def asks_what_was_told(messages: list[Message]) -> bool:
    """Whether the user asks for what he alone can have told.

    A note in brackets, of a sound, may answer it together with what was told.
    """
    last = messages[-1]
    is_question = last["role"] == "user" and "[" not in last["content"]
    return is_question and ASKED.search(last["content"]) is not None


def with_check(messages: list[Message]) -> list[Message]:
    """The conversation, in which the user asks last whether the answer to his question is in it."""
    last = messages[-1]
    return [*messages[:-1], last | {"content": last["content"].rstrip(" .?!") + CHECK}]


def is_told(nats: dict[str, float]) -> bool:
    """Whether it was told, by the log-probabilities of the check's first token."""
    if not nats.keys() >= {"Yes", "No"}:
        return True
    return nats["Yes"] - nats["No"] >= TOLD_NATS
