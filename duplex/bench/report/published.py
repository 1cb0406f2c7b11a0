"""Published results to show beside ours: Full-Duplex-Bench v1 (arXiv 2503.04721, its leaderboard).

Other data and another machine than ours, so they are for orders of magnitude.
"""

# Each column: its title, and our figure by the same rule (kind of scene, figure). Candor's people
# and the judge are theirs alone.
COLUMNS = (
    ("pause, synthetic: take-over ↓", ("pause", "take_over")),
    ("pause, Candor: take-over ↓", None),
    ("listening: take-over ↓", ("listening", "take_over")),
    ("listening: back-channels /s ↑", ("listening", "back_channels_per_s")),
    ("listening: JS distance ↓", ("listening", "js_distance")),
    ("turn: take-over ↑", ("turn", "take_over")),
    ("turn: latency s ↓", ("turn", "latency_clipped_s")),
    ("interruption: take-over ↑", ("interruption", "take_over")),
    ("interruption: GPT-4 0-5 ↑", None),
    ("interruption: latency s ↓", ("interruption", "latency_clipped_s")),
)
# The values of each model, in the order of the columns.
MODELS = {
    "PersonaPlex": (0.584, 0.662, 0.327, 0.025, 0.649, 0.992, 0.070, 1.00, 4.21, 0.400),
    "Moshi": (0.985, 0.980, 1.00, 0.001, 0.957, 0.941, 0.265, 1.00, 0.77, 0.257),
    "Freeze-Omni": (0.642, 0.481, 0.636, 0.001, 0.997, 0.336, 0.953, 0.867, 3.62, 1.41),
    "Gemini Live 2.0": (0.255, 0.310, 0.091, 0.012, 0.896, 0.655, 1.30, 0.891, 3.38, 1.18),
    "GPT-Realtime": (0.010, 0.120, 0.000, 0.007, 0.980, 1.00, 1.47, 0.970, 3.85, 1.50),
}
