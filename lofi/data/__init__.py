"""Data: annotations and videos, grid, decoding, windows, feature directories, and batches of them."""
