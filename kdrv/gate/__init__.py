"""Judging a patch series, patch by patch, in both languages."""
