"""New phones of all slots are encoded at once: as each alone, whatever the others are."""

import numpy as np
import torch

from duplex.device.voice import MOST_PHONES, PHONE_ROWS
from tests.device.test_agent import device_agent


@torch.inference_mode()
def test_phones_are_encoded_as_those_of_each_slot_alone():
    agent = device_agent(PHONE_ROWS + 2)
    synthesizer, link = agent.response.synthesizer, agent.parts.lm.link
    phones = synthesizer.talker.phone_encoder.embedding.num_embeddings
    rng = np.random.default_rng(0)
    lengths = [*rng.integers(1, MOST_PHONES + 1, PHONE_ROWS + 4), MOST_PHONES + 5]
    given = [rng.integers(0, phones, length).tolist() for length in lengths]
    waits = link.waits
    found = synthesizer.encode_phones(given)
    assert link.waits == waits + 1
    for own, alone in zip(found, synthesizer.encode_each(given), strict=True):
        for got, expected in zip(own, alone, strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    again = synthesizer.encode_phones(given[7:9])
    for own, other in zip(again, found[7:9], strict=True):
        assert torch.equal(own[0], other[0]) and torch.equal(own[1], other[1])
    assert synthesizer.encode_phones([]) == [] and link.waits == waits + 2
