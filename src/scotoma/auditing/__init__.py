"""How often, how badly and how recoverably a generator draws what it should not."""
