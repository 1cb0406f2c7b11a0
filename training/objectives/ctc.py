"""What the encoder learns: phones by CTC, and at first the features of its teacher.

A batch is a duplex.training.data.clips.Batch; T is the ticks of its longest clip, C the width.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from duplex.audio import ENCODER_FRAMES_PER_TICK
from duplex.model.asr import features
from duplex.model.asr.encoder import BLANK, Encoder
from duplex.model.asr.features import MIN_PEAK, log_mel
from duplex.training.common.precision import mixed
from duplex.training.data.clips import Batch
from duplex.training.objectives.teacher import Teacher


def is_head(name: str) -> bool:
    """Whether a parameter belongs to what reads phones off the features."""
    return name.startswith("phones")


def student_mel(wave: Tensor, rng: np.random.Generator) -> Tensor:
    """wave [B, N] -> mel [B, M, 80], as if each clip came somewhere in a stream.

    In most of them a few bands and moments are hidden (SpecAugment, Park et al., 2019).
    """
    peak = torch.from_numpy(rng.uniform(MIN_PEAK - 1.0, 2.0, len(wave))).float()
    state = features.initial_state(len(wave))
    state.peak = peak.clamp(min=MIN_PEAK)
    mel, _ = log_mel(wave, state)
    for row in mel:
        if rng.random() < 0.7:
            band = rng.integers(0, 70)
            moment = rng.integers(0, len(row))
            row[:, band : band + rng.integers(1, 12)] = row.mean()
            row[moment : moment + rng.integers(1, 25)] = row.mean()
    return mel


def ctc_loss(log_probs: Tensor, batch: Batch) -> Tensor:
    """Negative log-likelihood per phone, of log_probs [B, 4 T, 1 + phones]."""
    target = torch.tensor([phone for clip in batch.targets for phone in clip], dtype=torch.long)
    lengths = torch.tensor([len(clip) for clip in batch.targets])
    frames = batch.ticks * ENCODER_FRAMES_PER_TICK
    loss = F.ctc_loss(
        log_probs.transpose(0, 1), target, frames, lengths, BLANK, "sum", zero_infinity=True
    )
    return loss / max(1, len(target))


def teacher_loss(features: Tensor, wanted: Tensor, ticks: Tensor, delay: int = 4) -> Tensor:
    """Distance in units of each channel's spread, and angle.

    features [B, T, 4 C] of the student, wanted [B, 4 T, C], ticks [B]: length of each clip. The
    student may be `delay` frames of 20 ms later than the teacher.
    """
    frames = features.unflatten(2, (ENCODER_FRAMES_PER_TICK, -1)).flatten(1, 2)
    frames = frames[:, delay:].float()
    wanted = wanted[:, :-delay].float()
    lengths = ticks[:, None] * ENCODER_FRAMES_PER_TICK - delay
    inside = torch.arange(wanted.shape[1]) < lengths
    frames = frames[inside]  # [frames, C]
    wanted = wanted[inside]
    spread = wanted.std(0).clamp(min=1e-3)
    distance = F.smooth_l1_loss(frames / spread, wanted / spread)
    return distance + 1 - F.cosine_similarity(frames, wanted).mean()


def train_step(
    encoder: Encoder,
    teacher: Teacher | None,
    done: float,
    batch: Batch,
    rng: np.random.Generator,
) -> dict[str, float]:
    """The losses of one batch; gradients are left in the encoder.

    done: share of the time that has passed. A new head's first gradients would ruin what came from
    Whisper: in the first 8 % of the time only the teacher moves the body. It teaches for 20 %.
    """
    mel = student_mel(batch.wave, rng)
    teaching = torch.zeros(())
    with mixed():
        features = encoder.encode_clip(mel)
        attached = features.detach() if teacher and done < 0.08 else features
        log_probs = encoder.phone_log_probs(attached)
        if teacher and done < 0.2:
            with torch.no_grad():
                wanted = teacher(teacher.mel(batch.clean), batch.ticks)
            teaching = teacher_loss(features, wanted, batch.ticks)
    hearing = ctc_loss(log_probs, batch)
    (hearing + 10.0 * teaching).backward()
    head = [p for name, p in encoder.named_parameters() if is_head(name)]
    body = [p for name, p in encoder.named_parameters() if not is_head(name)]
    head_norm = torch.nn.utils.clip_grad_norm_(head, 5.0)
    norm = torch.nn.utils.clip_grad_norm_(body, 5.0)
    losses = {"ctc": hearing, "teacher": teaching, "norm": norm, "head_norm": head_norm}
    return {name: loss.item() for name, loss in losses.items()}
