"""The order saga in the words of others.

Each program runs in an environment of its own and imports nothing of amends; mypy, which has not got it, leaves it out.
"""
