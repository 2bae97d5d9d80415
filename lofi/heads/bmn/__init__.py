"""The BMN head: `model`; maps, losses and candidates are `heads.proposals`."""
