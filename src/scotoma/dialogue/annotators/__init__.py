"""Who labels. Every annotator is an `Annotator` (contract.py); those of language models are made by `llm.llm` from a Chat."""
