"""Datasets' own annotation files and own tables, read into one plain value; `table` has them by name."""
