"""Detectors: anything that turns pictures or texts into Verdicts.

One contract (`contract.py`): a batch in, for each category one Verdict for each item out, in order. What a detector is worth
is on its card (`card.py`). Nothing here knows the generator whose output it looks at.
"""
