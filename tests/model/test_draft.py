"""The draft network proposes no more than the rules allow."""

import torch

from duplex.model import tokens
from duplex.model.draft import Draft, DraftConfig, DraftInput, propose
from duplex.model.tokens import Grammar
from tests.tiny_speech_agent import tiny_parts


def test_nothing_is_proposed_beyond_the_rules():
    """No text where none may come, neither <next> nor <stop>, and no more than asked for."""
    lm = tiny_parts().lm
    width = lm.config.width
    torch.manual_seed(1)
    draft = Draft(DraftConfig(width, 16)).eval().double()
    torch.nn.init.normal_(draft.down.weight, std=1.0)
    speaking = Grammar(tokens.AGENT, user_open=False, agent_open=True)
    for _ in range(30):
        hidden = torch.randn(2, width, dtype=torch.double)
        inputs = torch.randn(3, width, dtype=torch.double)
        proposals = propose(
            draft,
            lm,
            {
                0: DraftInput(hidden[0], inputs[:2], Grammar(), can_speak=False, is_audible=True),
                1: DraftInput(hidden[1], inputs[2:], speaking, can_speak=True, is_audible=True),
            },
            max_symbols=3,
            next_penalty=0.0,
            min_probability=0.0,
        )
        for found in proposals.values():
            assert len(found) <= 3
            assert not {tokens.NEXT, tokens.STOP} & {*found}
        assert all(symbol < tokens.FIRST_TEXT_ID for symbol in proposals[0][:1])
