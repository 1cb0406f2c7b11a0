"""The agent's ears, made of the options of `add_listening`."""

import argparse

from duplex.agent.loader import LoadOptions, compiled, load_second_pass
from duplex.checkpoint import load_config, load_tensors
from duplex.model.asr.encoder import Encoder, EncoderConfig
from duplex.model.parts import Parts
from duplex.training.conversations.conversation import Listener
from duplex.training.conversations.hearing import Ears
from duplex.training.scenes.recognition import load_search


def load_listener(args: argparse.Namespace) -> Listener:
    """The agent's ears. Raises WeightsError."""
    encoder = Encoder(load_config(EncoderConfig, args.encoder)).eval()
    encoder.load_state_dict(load_tensors(args.encoder))
    whisper = load_second_pass(LoadOptions(second_pass=args.second_pass))
    second = compiled(Parts(whisper=whisper), threads=1)
    ears = Ears(load_search(args.lexicon), second.whisper)
    return Listener(encoder, ears, args.min_fit, agent_label=args.agent_label)
