"""What was said so far, in words: the conversation as a large mind reads it."""

from dataclasses import dataclass, field

from duplex.agent.memory import Key

# Stands where the agent was interrupted.
CUT = " …"


@dataclass
class Utterance:
    """What one side said at a stretch, or a note of the client."""

    # "system", "user" or "assistant".
    role: str
    text: str
    # By which it can be forgotten, see memory.py.
    key: Key | None = None


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

    def set_answer(self, text: str, is_cut: bool = False) -> None:
        """What the agent has really said in its last turn; is_cut: before it was interrupted."""
        for said in reversed(self.utterances):
            if said.role == "assistant":
                said.text = text.rstrip() + (CUT if is_cut and text.strip() else "")
                return

    def answer(self) -> str:
        """What the agent said in its last turn, as far as it is known."""
        return next((s.text for s in reversed(self.utterances) if s.role == "assistant"), "")


def messages(
    conversation: Conversation, max_chars: int, open_turn: str = ""
) -> list[dict[str, str]]:
    """The conversation for a chat model.

    The instructions stay; of the rest the oldest go until no more than max_chars are left, but the
    last message always stays. Neighbours of one side are one message. open_turn: what the user says
    now.
    """
    said = [(u.role, u.text.strip()) for u in conversation.utterances if u.text.strip()]
    if open_turn.strip():
        said.append(("user", open_turn.strip()))
    first = said[:1] if said and said[0][0] == "system" else []
    rest: list[dict[str, str]] = []
    for role, text in said[len(first) :]:
        if rest and rest[-1]["role"] == role:
            rest[-1] = {"role": role, "content": f"{rest[-1]['content']} {text}"}
        else:
            rest.append({"role": role, "content": text})
    while len(rest) > 1 and sum(len(message["content"]) for message in rest) > max_chars:
        del rest[0]
    return [{"role": role, "content": text} for role, text in first] + rest
