"""A session's voice and speaking rate: what changes, what does not, and how clients choose."""

import asyncio
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from duplex import voices
from duplex.audio import CODEC_FRAME_SAMPLES, TICK_SAMPLES
from duplex.model.tts.codec import Codec, CodecConfig
from duplex.model.tts.vocoder import BINS, MIDDLE_HZ, PARTS, warp
from duplex.serving.commands import Configure, SetVoice, Start
from duplex.serving.engine import Engine
from duplex.serving.openai.realtime import OpenAIRealtime
from duplex.training.data.pitch import pitch
from tests.tiny_agent import TinyAgent
from tests.tiny_speech_agent import tiny_agent


def test_resonances_move_and_those_of_the_learned_voice_do_not():
    spectrum = torch.randn(2, 3, PARTS * BINS)
    spectrum[1, :, [100, BINS + 300]] = 9.0
    moved = warp(spectrum, torch.tensor([0.0, math.log(0.5)]))
    assert torch.equal(moved[0], spectrum[0])
    assert moved[1, :, :BINS].argmax(-1).tolist() == [50] * 3
    assert moved[1, :, BINS : 2 * BINS].argmax(-1).tolist() == [150] * 3


def test_pitch_is_that_of_the_voice():
    codec = Codec(CodecConfig(codebook_size=16, latent_width=8, encoder_blocks=1, decoder_blocks=1))
    frames = 40
    falling = -torch.arange(BINS) / 40
    spectrum = torch.cat([torch.full((BINS,), -12.0), falling, torch.zeros(2 * BINS)])
    voiced = spectrum.expand(2, frames, -1)
    codec.decoder.pitch_bias.data.fill_(math.log(200.0 / MIDDLE_HZ))
    state = codec.initial_decode_state(2)
    state.set_voice(1, replace(voices.VOICES["oak"], tract=1.0))
    frames_of_nothing = torch.zeros(2, frames, codec.config.decoder_width)
    with torch.no_grad():
        wave, _ = codec.decoder.render(frames_of_nothing, voiced, state.histories, state)
    hz, is_voiced = pitch(wave[:, 10 * CODEC_FRAME_SAMPLES :])
    assert is_voiced.float().mean() > 0.9
    assert hz.median(1).values.tolist() == pytest.approx([200, 110], rel=0.02)


def speak(agent, ticks: int = 30) -> tuple[np.ndarray, list]:
    """Both slots say the same words -> sound [2, ticks * samples], events of each."""
    sound, events = [], [[], []]
    for slot in range(2):
        response = agent.response
        words, _ = response.g2p.push("Good day, my friend. ", response.g2p.initial_state())
        response.queue_new_words(slot, agent.sessions[slot], words)
        response.synthesizer.finish(response.synthesis_state, slot)
    for _ in range(ticks):
        voice, said = agent.step(np.zeros((2, TICK_SAMPLES), np.float32), [0, 1])
        sound.append(voice)
        events = [
            before + [e for e in new if e.kind == "spoken"]
            for before, new in zip(events, said, strict=True)
        ]
    return np.concatenate(sound, 1), events


def test_sessions_have_their_own_voice_and_rate():
    results = []
    for voice in (voices.DEFAULT, "oak"):
        agent = tiny_agent(2)
        for slot in range(2):
            agent.open(slot, seed=slot)
        agent.set_voice(1, voice, 1.0)
        results.append(speak(agent))
    (plain, words), (low, low_words) = results
    np.testing.assert_array_equal(plain[0], low[0])
    assert np.abs(plain[1] - low[1]).max() > 1e-3 and words == low_words
    agent.set_voice(1, "oak", 1.4)
    assert [u.rate for u in agent.response.synthesis_state.slots] == [1.0, 1.4]


def test_reused_slot_has_the_usual_voice():
    agent = tiny_agent(1)
    agent.open(0)
    agent.set_voice(0, "oak", 1.2)
    agent.close(0)
    agent.open(0)
    state = agent.response.codec_state
    assert not state.log_pitch.any() and not state.log_tract.any()
    assert agent.response.synthesis_state.slots[0].rate == 1.0


@pytest.mark.parametrize(("voice", "speed"), [("nobody", 1.0), ("oak", 3.0), ("oak", 0.0)])
def test_unknown_voice_is_refused_and_changes_nothing(voice, speed):
    agent = tiny_agent(1)
    agent.open(0)
    agent.set_voice(0, "oak", 1.2)
    before = agent.response.codec_state.log_pitch.clone()
    with pytest.raises(ValueError, match="voice|rate"):
        agent.set_voice(0, voice, speed)
    assert agent.sessions[0].client.voice == "oak"
    assert torch.equal(agent.response.codec_state.log_pitch, before)


def test_instructions_keep_the_voice(clock):
    async def ask():
        engine = Engine(TinyAgent(1), 1, clock=clock)
        engine.start()
        session = await engine.open(Start(seed=1))
        session.enqueue_command(SetVoice("oak", 1.2))
        session.enqueue_command(Configure("Be brief."))
        clock.advance(1.0)
        await session.get()
        engine.stop()
        return engine.agent.calls

    assert asyncio.run(ask()) == [("set_voice", 0, "oak", 1.2)] * 2


def test_clients_of_the_openai_dialect_choose_a_voice():
    for name, voice in (("oak", "oak"), ("cedar", "oak"), ("marin", "heart")):
        dialect = OpenAIRealtime()
        update = {
            "type": "session.update",
            "session": {"audio": {"output": {"voice": name, "speed": 1.25}}},
        }
        commands, [updated] = dialect.receive(json.dumps(update))
        assert commands == [SetVoice(voice, 1.25)] and f'"voice":"{voice}","speed":1.25' in updated
