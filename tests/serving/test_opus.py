"""Packets of Opus without Ogg, made by another encoder than ours."""

import io

import numpy as np
import pytest
import soundfile

from duplex.audio import SAMPLE_RATE
from duplex.errors import ProtocolError
from duplex.serving.sound import audio_forms, opus
from tests.helpers import tone

FORMATS = soundfile.available_subtypes("OGG")


def recorded(rate: int) -> list[bytes]:
    """The packets of a second of a tone, by libsndfile: many on one page, of 20 ms each."""
    file = io.BytesIO()
    sound = tone(13)[: SAMPLE_RATE : SAMPLE_RATE // rate]
    soundfile.write(file, sound, rate, format="OGG", subtype="OPUS")
    return opus.packets(file.getvalue())


@pytest.mark.skipif("OPUS" not in FORMATS, reason="this libsndfile has no Opus")
@pytest.mark.parametrize("rate", [8_000, 24_000])
def test_packets_of_a_device_are_heard(rate):
    packets = recorded(rate)
    assert len(packets) >= 50
    form = audio_forms.make("opus_packets")
    heard = np.concatenate([form.decode(packet) for packet in packets])
    assert len(heard) == pytest.approx(SAMPLE_RATE, rel=0.1)
    level = np.abs(np.fft.rfft(heard[4_000:16_000] * np.hanning(12_000)))
    assert np.argmax(level) * 2 == pytest.approx(440, abs=4)


def test_long_packet_has_all_its_lengths():
    """255 bytes a number; a packet of just so many needs a zero behind it."""
    for length in (1, 254, 255, 256, 510, 1275):
        packet = bytes([length % 251]) * length
        wrapper = opus.Wrapper()
        assert opus.packets(wrapper.wrap(packet) + wrapper.wrap(b"\x01")) == [packet, b"\x01"]


def test_what_is_no_packet_is_one_sentence():
    for packet in (b"", bytes(opus.MAX_BYTES + 1)):
        with pytest.raises(ProtocolError):
            audio_forms.make("opus_packets").decode(packet)
