"""Screening a data set with the detectors: what to keep, what to drop, what somebody has to look at.

`run.curate` is all of it. `sources` and what it reads (`shards`, `tables`, `captions`) make a stream of items, `screen` decides on
batches of them, `duplicates` finds the same picture twice, `contamination` counts. The source is only read.
"""
