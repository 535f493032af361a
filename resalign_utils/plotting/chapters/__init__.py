"""Figures of one chapter only; everything public is importable from :mod:`resalign_utils.plotting`."""
