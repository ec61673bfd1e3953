"""Where examples lie: finds what a folder holds, and reads the raw bytes of any example."""
