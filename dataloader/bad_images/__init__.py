"""Images that cannot be decoded: which one it was, why, and what stands in for it."""
