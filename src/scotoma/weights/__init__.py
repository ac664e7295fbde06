"""Files of weights: read safely, and known by what they hold."""
