"""Lets the processes of one job find each other and exchange arrays."""
