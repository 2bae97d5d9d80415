"""The TriDet head: `sgp` (the pyramid's blocks), `trident` (boundaries by relative offsets), `model` (all together); pyramid,
targets and losses are ActionFormer's."""
