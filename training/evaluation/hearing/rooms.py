"""Far-field rooms for measuring: the image-source method (Allen and Berkley, 1979).

Training hears rooms of another kind (duplex.training.data.augment: a tail of decaying noise), so
none of these was heard there.
"""

import numpy as np
import scipy.signal

from duplex.audio import SAMPLE_RATE

# Metres a second, of sound.
SPEED = 343.0


def far_field_response(rng: np.random.Generator) -> np.ndarray:
    """A living room or office: RT60 0.4 to 0.8 s, a talker 2 to 3.5 m away, float32 [N].

    The direct sound comes first, at amplitude 1, 2 to 11 dB below all reflections together.
    """
    size = rng.uniform([4.5, 3.8, 2.4], [8.0, 6.0, 3.2])
    # A box decays more slowly than Eyring says, 0.4 to 0.8 s: its walls are not hit evenly.
    reverberation_s = rng.uniform(0.32, 0.62)
    talker, microphone = _places(size, rng.uniform(2.0, 3.5), rng)
    return room_response(size, talker, microphone, reverberation_s, rng)


def _places(
    size: np.ndarray, distance: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Two points at least half a metre from every wall, `distance` metres apart, [3] each."""
    while True:
        talker = rng.uniform(0.5, size - 0.5)
        direction = rng.normal(size=3) * [1.0, 1.0, 0.2]
        microphone = talker + distance * direction / np.linalg.norm(direction)
        if (microphone > 0.5).all() and (microphone < size - 0.5).all():
            return talker, microphone


def room_response(
    size: np.ndarray,
    talker: np.ndarray,
    microphone: np.ndarray,
    reverberation_s: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """The response of a box of `size` metres [3] with six walls alike, float32 [N].

    What its walls swallow follows from the reverberation time (Eyring). Late images are moved by up
    to 8 cm, as furniture would: exact ones ring.
    """
    surface = 2 * (size[0] * size[1] + size[1] * size[2] + size[0] * size[2])
    swallowed = 1 - np.exp(-0.161 * size.prod() / (surface * reverberation_s))
    reflection = np.sqrt(1 - swallowed)
    reach = SPEED * reverberation_s
    squares, counts = [], []
    for axis in range(3):
        order = int(np.ceil(reach / (2 * size[axis])))
        numbers = np.arange(-order, order + 1)
        places = np.concatenate(
            [
                2 * numbers * size[axis] + talker[axis],
                2 * numbers * size[axis] - talker[axis],
            ]
        )
        squares.append(np.square(places - microphone[axis]))
        counts.append(np.concatenate([np.abs(2 * numbers), np.abs(2 * numbers - 1)]))
    square = squares[0][:, None, None] + squares[1][None, :, None] + squares[2][None, None]
    count = counts[0][:, None, None] + counts[1][None, :, None] + counts[2][None, None]
    within = square < reach**2
    metres, reflections = np.sqrt(square[within]), count[within]
    metres = metres + np.where(reflections > 0, rng.uniform(-0.08, 0.08, len(metres)), 0.0)
    direct = np.linalg.norm(talker - microphone)
    delays = np.round((metres - direct).clip(0) / SPEED * SAMPLE_RATE).astype(int)
    response = np.bincount(delays, direct / metres * reflection**reflections)
    # Images all push the same way, which no wall does below the lowest mode of a room.
    response = scipy.signal.sosfilt(
        scipy.signal.butter(2, 50, "highpass", fs=SAMPLE_RATE, output="sos"), response
    )
    return response.astype(np.float32)


def direct_to_reverberant_db(response: np.ndarray) -> float:
    """Power of the first 2.5 ms over the rest."""
    direct = SAMPLE_RATE // 400
    power = np.square(response.astype(float))
    return float(10 * np.log10(power[:direct].sum() / power[direct:].sum()))


def reverberation_time(response: np.ndarray) -> float:
    """Seconds of a decay by 60 dB, from that between -5 and -25 dB (Schroeder)."""
    left = np.cumsum(np.square(response.astype(float))[::-1])[::-1]
    decay_db = 10 * np.log10(left / left[0] + 1e-12)
    begin, end = np.argmax(decay_db < -5), np.argmax(decay_db < -25)
    return 3 * (end - begin) / SAMPLE_RATE
