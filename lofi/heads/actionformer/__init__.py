"""The ActionFormer head: `blocks` (attention), `pyramid` (levels), `targets`, `losses`, `model` (all together)."""
