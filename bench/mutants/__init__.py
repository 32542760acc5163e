"""Drivers with known bugs, to measure what finds them."""
