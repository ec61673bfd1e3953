"""`--mode predict`: labels for images."""
