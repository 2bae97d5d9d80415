"""On each rank: train the recipes of a JSON file, validating every epoch; then show what prediction does with buffers that
differ between ranks. Prints one JSON line on rank 0."""

import json
import sys
from pathlib import Path

import torch
from torch import nn

from lofi.config.load import load_recipe
from lofi.engine import deepspeed_engine
from lofi.engine.optimizers import AdamwConfig, build_optimizer
from lofi.stages.train import run_training


def buffers_in_prediction(ranks):
    """The running mean of a batch norm before, in and after prediction, and the module's mode in and after it."""
    module = nn.Module()
    module.head = nn.BatchNorm1d(3)
    module.head.running_mean.fill_(ranks.rank + 1.0)
    optimizer = build_optimizer(module, AdamwConfig())
    engine = deepspeed_engine.build_engine(
        module,
        optimizer=optimizer,
        lr_scheduler=torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0),
        micro_batch_size=2,
        gradient_clipping=0.0,
        autocast_section={},
        block={},
    )
    norm = engine.module.head
    norm.running_mean.fill_(ranks.rank + 1.0)
    engine.train()
    with deepspeed_engine.prediction_mode(engine):
        inside = (norm.running_mean.tolist(), norm.training)
    after = (norm.running_mean.tolist(), norm.training)
    deepspeed_engine.close_engine(engine)
    return {"inside": inside, "after": after}


def main(file):
    for recipe, overrides in json.loads(file.read_text()):
        run_training(load_recipe(recipe, overrides))
    ranks = deepspeed_engine.start_ranks()
    buffers = deepspeed_engine.gather_from_ranks(buffers_in_prediction(ranks))
    if ranks.rank == 0:
        print(json.dumps({"buffers": buffers}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    deepspeed_engine.end_process(0)
