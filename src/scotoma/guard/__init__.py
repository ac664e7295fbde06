"""Serving behind one policy: what a prompt, a picture and a dialogue may be, decided and explained, and written down.

policy.yaml (`policy.py`) -> a Guard (`decide.py`), over a model that the policy admits (`verify.py`) -> Decisions and Outcomes
(`decision.py`), each in the audit log (`log.py`) before anybody sees it. Everything fails closed.
"""
