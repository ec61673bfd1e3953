"""Runs contenders in separate processes that take turns, and formats the results."""
