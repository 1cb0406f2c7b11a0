"""G.711 against the standard library's, which is there up to Python 3.12, and as a stream."""

import warnings

import numpy as np
import pytest

from duplex.serving import g711

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    audioop = pytest.importorskip("audioop")


@pytest.mark.parametrize(
    ("law", "expand"), [("audio/pcmu", audioop.ulaw2lin), ("audio/pcma", audioop.alaw2lin)]
)
def test_every_code_means_what_it_should(law, expand):
    codes = bytes(range(256))
    expected = np.frombuffer(expand(codes, 2), "<i2")
    np.testing.assert_array_equal(g711.LEVELS[law], expected)
    assert (
        len(
            set(expected)
            - set(np.rint(g711.expand(g711.compress(expected / 32768, law), law) * 32768))
        )
        == 0
    )


@pytest.mark.parametrize("law", g711.LEVELS)
def test_a_tone_survives_the_telephone(law):
    times = np.arange(48_000) / 24_000
    sound = (0.4 * np.sin(2 * np.pi * 600 * times)).astype(np.float32)
    encoder, decoder = g711.Encoder(law), g711.Decoder(law)
    codes = [encoder.encode(piece) for piece in sound.reshape(-1, 1920)]
    back = np.concatenate([decoder.decode(piece) for piece in codes])
    assert 15_000 < sum(map(len, codes)) <= 16_000
    best = max(np.corrcoef(back[8000:24000], sound[8000 - d : 24000 - d])[0, 1] for d in range(200))
    assert best > 0.995 and back[8000:24000].std() == pytest.approx(sound.std(), rel=0.05)
