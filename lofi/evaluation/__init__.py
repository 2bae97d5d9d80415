"""Evaluation: detections against annotations."""
