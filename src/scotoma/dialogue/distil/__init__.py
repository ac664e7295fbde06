"""Distillation: from a labelled run to a student, which is a detector of detectors/text.

training.py is the way that all routes share; encoder.py, embedded.py and ngrams.py are the routes; export.py makes ONNX of them.
"""
