"""The flags: what they are called, what they take, their defaults, and the files that hold them."""
