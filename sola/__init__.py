"""SoLa: an adapter on the features of a frozen encoder, trained without labels by similarity matching.

Source: "Soft-Landing Strategy for Alleviating the Task Discrepancy Problem in Temporal Action Localization Tasks" (Kang et
al., CVPR 2023, arXiv:2211.06023) and its published code. `PARTS` is what lofi's recipes can name of it.
"""

from sola.parts import PARTS

__all__ = ["PARTS"]
