"""Figures of a store's results, a module each: from results to a matplotlib figure, which `style` makes a file.

Nothing here goes through pyplot or leaves anything behind in matplotlib's settings.
"""
