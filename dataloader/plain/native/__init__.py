"""C++ of `dataloader.plain`; `library.py` loads it."""
