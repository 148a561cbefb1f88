"""From something that upscales, and test sets, to scores."""
