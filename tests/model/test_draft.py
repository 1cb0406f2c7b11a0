"""The draft network proposes no more than the rules allow."""

import torch

from duplex.model.draft import Draft, DraftConfig, DraftInput, propose
from duplex.model.tokens import AGENT, FIRST_TEXT_ID, NEXT, STOP, Grammar
from tests.tiny_speech_agent import tiny_parts


def test_nothing_is_guessed_beyond_the_rules():
    """No text where none may come, neither <next> nor <stop> as a guess, and no more than asked for."""
    lm = tiny_parts().lm
    width = lm.config.width
    torch.manual_seed(1)
    draft = Draft(DraftConfig(width, 16)).eval().double()
    torch.nn.init.normal_(draft.down.weight, std=1.0)
    for _ in range(30):
        asked = {
            0: DraftInput(
                torch.randn(width, dtype=torch.double),
                torch.randn(2, width, dtype=torch.double),
                Grammar(),
                can_speak=False,
                is_audible=True,
            ),
            1: DraftInput(
                torch.randn(width).double(),
                torch.randn(1, width).double(),
                Grammar(AGENT, False, True),
                True,
                True,
            ),
        }
        guesses = propose(draft, lm, asked, 3, 0.0, 0.0)
        assert all(len(g) <= 3 and not {NEXT, STOP} & set(g) for g in guesses.values())
        assert all(symbol < FIRST_TEXT_ID for symbol in guesses[0][:1])
