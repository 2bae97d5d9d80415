"""Recipes: a flat, whole YAML statement of one run -> dataclasses. The only place that imports omegaconf is `load.py`."""
