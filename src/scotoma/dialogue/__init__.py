"""CensorChat as a pipeline: dialogues -> items -> votes -> labels -> a small classifier.

Qiu et al., "Facilitating NSFW Text Detection in Open-Domain Dialogue Systems via Knowledge Distillation" (CSCWD 2024,
arXiv 2403.13250). `label` runs the labelling half (run.py), `distil/` the learning half; what they make is a detector of
detectors/text.
"""
