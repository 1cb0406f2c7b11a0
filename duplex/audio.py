"""The units of sound and time of the whole project, and what counts as silence.

Each length is derived from the sample rate by exact division. Nothing else in the tree writes 1920,
320 or 240: a tick, a codec frame and a feature hop are named here. Levels are of full scale, which
is 1.0; the decibels beside them are relative to it.
"""

# Samples a second, mono, in both directions, on the wire and in the codec.
SAMPLE_RATE = 24_000

# Milliseconds of one tick, the step of everything: so much is heard and spoken at once.
TICK_MS = 80
# The same in seconds.
TICK_S = TICK_MS / 1000
# Samples of one tick: 1920.
TICK_SAMPLES = SAMPLE_RATE * TICK_MS // 1000
# Ticks in a second: 12.5.
TICKS_PER_SECOND = 1000 / TICK_MS

# Frames a second that the codec makes.
CODEC_FRAME_RATE = 75
# Samples of one codec frame: 320, or 13.3 ms.
CODEC_FRAME_SAMPLES = SAMPLE_RATE // CODEC_FRAME_RATE
# Codec frames in a tick: 6.
CODEC_FRAMES_PER_TICK = TICK_SAMPLES // CODEC_FRAME_SAMPLES

# Log-mel frames a second.
MEL_RATE = 100
# Samples from one log-mel frame to the next: 240, or 10 ms.
MEL_HOP_SAMPLES = SAMPLE_RATE // MEL_RATE
# Samples that one log-mel frame looks at: 600, or 25 ms.
MEL_WINDOW_SAMPLES = SAMPLE_RATE // 40
# Log-mel frames in a tick: 8.
MEL_FRAMES_PER_TICK = TICK_SAMPLES // MEL_HOP_SAMPLES
# Frames of the encoder in a tick: 4, for it halves the mel rate to 50 a second.
ENCODER_FRAMES_PER_TICK = MEL_FRAMES_PER_TICK // 2
# Seconds of one frame of the encoder: 0.02.
ENCODER_FRAME_S = TICK_S / ENCODER_FRAMES_PER_TICK

# Nobody misses a sample below this (-60 dB): playback may leave it out or let it wait.
INAUDIBLE = 1e-3
# A sample of the agent's channel above this (-46 dB) counts as its voice.
AUDIBLE = 5e-3
# A sample above this (-40 dB) counts as speech; a tick without one may be skipped to catch up.
SPEECH_LEVEL = 1e-2
# Root mean square of a voice at the level of a conversation (-20 dB).
VOICE_RMS = 0.1
