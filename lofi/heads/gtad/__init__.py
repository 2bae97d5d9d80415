"""The G-TAD head: `graph` (GCNeXt), `model` (all together); maps, losses and candidates are `heads.proposals`."""
