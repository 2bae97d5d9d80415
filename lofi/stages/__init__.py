"""Stages: what a command does, from a recipe to files. Each is one function; `compare` runs chains of them."""
