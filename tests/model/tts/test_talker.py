"""The talker's network: it looks no further than promised, and samples by its logits."""

import torch

from duplex.model.tts.talker import LOOKAHEAD
from tests.model.tiny import tiny_talker


def test_network_is_causal():
    talker = tiny_talker()
    codes = torch.randint(32, (1, 40, 3))
    conditions = torch.randn(1, 40, 16, dtype=torch.float64, requires_grad=True)
    logits = talker(codes, codes, conditions).view(3, 40, -1)
    (gradient,) = torch.autograd.grad(logits[:, 21].sum(), conditions)
    assert gradient[0, 22:].abs().max() == 0
    assert gradient[0, 21].abs().max() > 0
    later = codes.clone()
    later[0, 22:] = 0
    changed = talker(later, later, conditions).view(3, 40, -1)
    assert torch.equal(changed[:, :22], logits[:, :22])


def test_phones_look_no_further_than_promised():
    talker = tiny_talker()
    embedded = []
    talker.phone_encoder.embedding.register_forward_hook(lambda *call: embedded.append(call[2]))
    phones = torch.randint(20, 100, (1, 30))
    encoded, _ = talker.phone_encoder(phones, torch.tensor([30]), torch.tensor([0]))
    (gradient,) = torch.autograd.grad(encoded[0, 12].sum(), embedded[0])
    reach = gradient[0].abs().sum(-1).nonzero()[:, 0]
    assert reach.max() == 12 + LOOKAHEAD
