"""Texts of clients and instructions as tokens: what the LM is to read, and what it has room for."""

from duplex.agent.config import AgentConfig
from duplex.agent.session import Session, keep_text
from duplex.model.tokens import AGENT, CHAT_END, CHAT_START, END, USER, USER_END, advance


class TextInput:
    """Puts texts in line; they are read a few positions a tick."""

    def __init__(self, tokenizer, config: AgentConfig, max_tokens: int):
        """max_tokens: of a long text the LM reads no more, its beginning and its end."""
        self.tokenizer = tokenizer
        # Marks in a client's text are text: only what the agent adds itself is a control symbol.
        self.tokenizer.encode_special_tokens = True
        self.config = config
        self.max_tokens = max_tokens

    def write(
        self, session: Session, role: str, text: str, is_answered: bool, name: str | None
    ) -> None:
        """Queue a text of a role; arguments as of Agent.write."""
        if role in ("system", "event"):
            self._queue_note(session, self._kept(text), name)
            return
        is_user = role == "user"
        before = USER if is_user else AGENT
        after = USER_END if is_user else END
        self._queue(session, [before, *self._kept(" " + text.strip()), after], name)
        session.grammar = advance(advance(session.grammar, before), after)
        session.answer_due = is_user and (is_answered or session.answer_due)

    def _kept(self, text: str) -> list[int]:
        tokens = self.encode(text)
        if len(tokens) <= self.max_tokens:
            return tokens
        gap = self.encode(" … ")
        first = (self.max_tokens - len(gap)) // 2
        return [*tokens[:first], *gap, *tokens[first + len(gap) - self.max_tokens :]]

    def _queue_note(self, session: Session, tokens: list[int], name: str | None) -> None:
        """A note of the system, in parts: between them the LM can turn to the user."""
        step = self.config.note_tokens
        for begin in range(0, len(tokens), step):
            part = tokens[begin : begin + step]
            before = [CHAT_START, *self.encode("system\n")]
            after = [CHAT_END, *self.encode("\n")]
            self._queue(session, [*before, *part, *after], name)

    def _queue(self, session: Session, tokens: list[int], name: str | None) -> None:
        session.inputs.text += tokens
        keep_text(session, tokens)
        session.inputs.text_names += [name] * len(tokens)

    def prompt(self, instructions: str) -> list[int]:
        """Tokens of instructions. Raises ValueError where they are too long."""
        prompt = self._system_turn(instructions)
        if len(prompt) > self.config.prompt_cells:
            raise ValueError(
                f"the instructions are {len(prompt)} word pieces long; "
                f"{self.config.prompt_cells} can be kept in mind"
            )
        return prompt

    def lines_that_fit(self, instructions: str) -> str:
        """The first lines of instructions, as many as the LM has room for."""
        lines = instructions.strip().splitlines()
        while len(lines) > 1 and len(self.encode("\n".join(lines))) > self.max_prompt_tokens:
            lines.pop()
        return "\n".join(lines)

    @property
    def max_prompt_tokens(self) -> int:
        """Tokens that instructions may have, beside the marks around them."""
        return self.config.prompt_cells - len(self._system_turn(""))

    def encode(self, text: str) -> list[int]:
        """The tokens of a text, no control symbol among them."""
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def _system_turn(self, text: str) -> list[int]:
        """Instructions, as the LM reads them."""
        return [CHAT_START, *self.encode(f"system\n{text}"), CHAT_END, *self.encode("\n")]
