"""Writes HTML pages from `templates/`, and plots in their colours."""
