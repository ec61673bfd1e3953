"""Settings that fit the data, where the user left them open."""
