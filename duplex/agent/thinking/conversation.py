"""What was said so far, in words: the conversation as a large mind reads it."""

import re
from dataclasses import dataclass, field

from duplex.agent.memory import Key
from duplex.mind.thinker import Call, Message

# Stands where the agent was interrupted.
CUT = " …"
# Stands for the result of a call that has none yet.
PENDING = "not there yet"
# A line of the instructions that shows how the agent speaks.
EXAMPLE = re.compile(r'^Asked "(.+)" you say: "(.+)"$', re.MULTILINE)


@dataclass
class Utterance:
    """What one side said at a stretch, or a note of the client."""

    # "system", "user" or "assistant".
    role: str
    text: str
    # By which it can be forgotten, see memory.py.
    key: Key | None = None
    # A call in it, and then its result.
    call: Call | None = None
    result: str | None = None


@dataclass
class Conversation:
    """Of one session: first what the agent shall keep in mind, then all that was said."""

    utterances: list[Utterance] = field(default_factory=list)

    def add(self, role: str, text: str, key: Key | None = None) -> None:
        """What was said last."""
        self.utterances.append(Utterance(role, text, key))

    def forget(self, key: Key) -> None:
        """It was never said."""
        self.utterances = [said for said in self.utterances if said.key != key]

    def add_call(self, call: Call) -> None:
        """The assistant wants this called."""
        self.utterances.append(Utterance("assistant", "", call=call))

    def set_result(self, call_id: str, result: str) -> None:
        """A call has a result, or why there is none.

        Nobody reads it any more where it stands, once more was said: then it is a note at the end.
        """
        place = next(
            (i for i, u in enumerate(self.utterances) if u.call and u.call.id == call_id), None
        )
        if place is None:
            self.add("system", result)
        elif all(later.call for later in self.utterances[place:]):
            self.utterances[place].result = result
        else:
            name = self.utterances[place].call.name
            self.add("system", f"The result of {name}, asked for before: {result}")

    def set_answer(self, text: str, is_cut: bool = False) -> None:
        """What the agent has really said in its last turn; is_cut: before it was interrupted."""
        for said in reversed(self.utterances):
            if said.role == "assistant" and said.call is None:
                said.text = _cut(text) if is_cut else text.rstrip()
                return

    def cut(self, key: Key, end: int) -> None:
        """Of what was said under this key the user has heard only so many characters."""
        for said in self.utterances:
            if said.key == key:
                said.text = _cut(said.text[:end])


def _cut(text: str) -> str:
    """A text that was interrupted."""
    return text.rstrip() + (CUT if text.strip() else "")


def messages(conversation: Conversation, max_chars: int, open_turn: str = "") -> list[Message]:
    """The conversation for a chat model.

    The instructions stay; of the rest the oldest go until no more than max_chars are left, but the
    last message always stays. Neighbours of one side are one message. open_turn: what the user says
    now.
    """
    said = [u for u in conversation.utterances if u.text.strip() or u.call]
    if open_turn.strip():
        said.append(Utterance("user", open_turn))
    first = said[:1] if said and said[0].role == "system" else []
    rest: list[Message] = []
    for utterance in said[len(first) :]:
        if utterance.call:
            rest += _call_messages(utterance)
            continue
        role = utterance.role
        text = utterance.text.strip()
        if rest and rest[-1]["role"] == role and "tool_calls" not in rest[-1]:
            rest[-1] = {"role": role, "content": f"{rest[-1]['content']} {text}"}
        else:
            rest.append({"role": role, "content": text})
    while len(rest) > 1 and sum(len(message["content"]) for message in rest) > max_chars:
        del rest[0]
        while len(rest) > 1 and rest[0]["role"] == "tool":
            # Its call is gone.
            del rest[0]
    return [message for u in first for message in _instructions(u.text)] + rest


def _instructions(text: str) -> list[Message]:
    """The first message, and the examples in it as turns, which a model follows better than text.

    Of 15 answers of a bakery's Qwen2.5-Coder-1.5B had 4 the manner of twelve such lines, and all 15
    as turns; of ten of a library 2 and 6, but 3 with a note behind them that these were examples.
    """
    told = {"role": "system", "content": EXAMPLE.sub("", text).strip()}
    shown = [
        {"role": role, "content": said}
        for pair in EXAMPLE.findall(text)
        for role, said in zip(("user", "assistant"), pair, strict=True)
    ]
    return [told, *shown]


def _call_messages(said: Utterance) -> list[Message]:
    """A call and its result."""
    call = said.call
    function = {"name": call.name, "arguments": call.arguments}
    calls = [{"id": call.id, "type": "function", "function": function}]
    result = said.result or PENDING
    return [
        {"role": "assistant", "content": "", "tool_calls": calls},
        {"role": "tool", "tool_call_id": call.id, "content": result},
    ]
