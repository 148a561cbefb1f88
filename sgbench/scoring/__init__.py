"""Scoring whatever upscales images on test sets."""
