"""Probes: what a linear layer and plain similarities find in snippet features, before any head is trained on them."""
