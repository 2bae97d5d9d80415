"""Initial weights of an encoder: our own runs and exports, and the public checkpoints that people start from.

    sources       a file, a run, torchvision:NAME, timm:NAME, hf:OWNER/REPOSITORY -> tensors under the names that they have
    files         a file, told by its first bytes, and its tensors
    families/     one module per family of names: to the library's names, and what of a file is no encoder's
    own_names     from the library's names to each encoder's
    loading       the tensors of a family -> an encoder; what does not fit is refused by name
    networks      which networks of torchvision and timm a file may hold
    describe      what a file is, and which encoder takes it: python -m lofi.encoders.weights FILE

Every tensor of a file must end in the encoder, but for the old task's head and the like, which are dropped by rule;
every tensor of the encoder must come from the file. `encoder.allow_unmatched` names the exceptions.
"""

from lofi.encoders.weights.loading import WeightsReport, load_encoder_weights
from lofi.encoders.weights.sources import find_weights

__all__ = ["WeightsReport", "find_weights", "load_encoder_weights"]
