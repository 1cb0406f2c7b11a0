"""The token grammar: control tokens in the tokenizer's spare places, and which may follow which.

One sequence holds two text streams, each opened by its tag. F is one tick's features:

    F F F F <user> what F F is the F capital F of F france F F </user> F <agent> The capital F of F
    France ... <end> F F

A tag also switches back to a stream that is still open, so hearing goes on while the agent speaks:

    <agent> The capital F of F <user> wait F F <agent> France F ...

In a long turn of the user the agent may say "mhm", which opens no stream:

    <user> so F yesterday F we F went F F <back> F home F ...

What is not for the agent is written down as well, and ends with <aside> instead of </user>.
"""

from dataclasses import dataclass

import torch

# Around the instructions and notes.
CHAT_START = 1
CHAT_END = 2
# Nothing more in this tick. It is never fed back.
NEXT = 3
# What follows was heard from the user.
USER = 4
# The user's turn is over: it was for the agent.
USER_END = 5
# What follows is to be spoken.
AGENT = 6
# The agent's turn is complete.
END = 7
# The agent yields; what it had not yet said is dropped.
STOP = 8
# The agent's own backchannel: it says "mhm" while the user's turn goes on.
BACK = 9
# It is never drawn: its score tells by how many nats the user has rather said all than not.
OVER = 10
# 11 and 12 are spare.
# Instead of </user>: it was for somebody else, or a mere backchannel; nobody waits for an answer.
ASIDE = 13
# The base tokenizer's special tokens end at 16; of them only the chat marks 0 to 2 keep their use.
FIRST_TEXT_ID = 17

CONTROLS = {
    NEXT: "<next>",
    USER: "<user>",
    USER_END: "</user>",
    AGENT: "<agent>",
    END: "<end>",
    STOP: "<stop>",
    ASIDE: "<aside>",
    BACK: "<back>",
}

# In an agent's folder, where the tokenizer is compressed.
COMPRESSED_TOKENIZER = "tokenizer.json.gz"


@dataclass
class Grammar:
    """Which text stream is open in one session, and hence which symbols may come next."""

    # USER, AGENT or None: where a text token now would belong.
    stream: int | None = None
    # <user> came, and neither </user> nor <aside> since.
    user_open: bool = False
    # <agent> came, and neither <end> nor <stop> since.
    agent_open: bool = False


def advance(grammar: Grammar, symbol: int) -> Grammar:
    """The grammar after `symbol`. Text leaves it as it is."""
    user_open, agent_open = grammar.user_open, grammar.agent_open
    if symbol == USER:
        return Grammar(USER, True, agent_open)
    if symbol == AGENT:
        return Grammar(AGENT, user_open, True)
    if symbol in (USER_END, ASIDE):
        return Grammar(AGENT if agent_open else None, False, agent_open)
    if symbol in (END, STOP):
        return Grammar(USER if user_open else None, user_open, False)
    return Grammar(grammar.stream, user_open, agent_open)


def kind(symbol: int, grammar: Grammar) -> str:
    """What a symbol is: a control's name, or text of one of the two streams."""
    if symbol < FIRST_TEXT_ID:
        return CONTROLS[symbol]
    return "hearing" if grammar.stream == USER else "speaking"


def allowed(grammar: Grammar, can_speak: bool, is_audible: bool) -> tuple[int, bool]:
    """What may come next: control symbols as bits (1 << symbol), and whether text may.

    Args:
        can_speak: False while the text's lead over the voice is used up.
        is_audible: the agent's voice is still to be heard, so there is something to stop.
    """
    controls = 1 << NEXT
    text = False
    if grammar.stream == USER:
        text = True
        controls |= 1 << USER_END | 1 << ASIDE
        if grammar.agent_open and can_speak:
            controls |= 1 << AGENT
        elif not grammar.agent_open:
            controls |= 1 << BACK
    else:
        controls |= 1 << USER
        if can_speak and grammar.stream == AGENT:
            text = True
            controls |= 1 << END
        elif can_speak:
            controls |= 1 << AGENT
    if is_audible or grammar.agent_open:
        controls |= 1 << STOP
    return controls, text


def controls_mask(controls: int) -> torch.Tensor:
    """bool [FIRST_TEXT_ID] of control symbols given as bits."""
    return torch.tensor([bool(controls >> symbol & 1) for symbol in range(FIRST_TEXT_ID)])


def allowed_mask(
    grammar: Grammar, vocabulary: int, can_speak: bool, is_audible: bool
) -> torch.Tensor:
    """`allowed` as bool [vocabulary], for those who have time."""
    controls, has_text = allowed(grammar, can_speak, is_audible)
    text = torch.full((vocabulary - FIRST_TEXT_ID,), has_text)
    return torch.cat([controls_mask(controls), text])
