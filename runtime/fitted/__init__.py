"""Chooses settings that fit the data, if the user left them open."""
