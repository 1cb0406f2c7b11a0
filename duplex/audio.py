"""Audio constants of the whole project, each derived from the sample rate by exact division, and wave files.

Nothing else in the tree writes 1920, 320 or 240: a tick, a codec frame and a feature hop are named here.
"""

SAMPLE_RATE = 24_000  # Hz, mono, both directions, on the wire and in the codec
TICK_MS = 80  # one step of everything
TICK_SAMPLES = SAMPLE_RATE * TICK_MS // 1000  # 1920
TICKS_PER_SECOND = 1000 / TICK_MS  # 12.5

CODEC_FRAME_RATE = 75  # Hz
CODEC_FRAME_SAMPLES = SAMPLE_RATE // CODEC_FRAME_RATE  # 320
CODEC_FRAMES_PER_TICK = TICK_SAMPLES // CODEC_FRAME_SAMPLES  # 6

MEL_RATE = 100  # Hz, log-mel frames
MEL_HOP_SAMPLES = SAMPLE_RATE // MEL_RATE  # 240, 10 ms
MEL_WINDOW_SAMPLES = SAMPLE_RATE // 40  # 600, 25 ms
MEL_FRAMES_PER_TICK = TICK_SAMPLES // MEL_HOP_SAMPLES  # 8
ENCODER_FRAMES_PER_TICK = MEL_FRAMES_PER_TICK // 2  # 4, the encoder halves the mel rate to 50 Hz
