"""Low-memory end-to-end training for temporal action localization.

Start at `fidelity.py` (what the snippet encoder sees at a step), then `protocols.py` (the seams), then
`gradients/joint.py` beside `gradients/chunked.py` (how the loss reaches the encoder), then `engine/loop.py`.
"""
