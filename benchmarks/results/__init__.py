"""Makes docs/results.md: published figures beside Convoy's."""
