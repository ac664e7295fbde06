"""Techniques that try to bring a concept back, run by a model's owner on the owner's own weights.

A probe is named for how it tries and knows no harmful target: concept and word list are the caller's. What it finds stays
in memory; whoever writes it down says why (design section 5).
"""
