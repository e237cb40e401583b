"""Private and unstable parts of other libraries, one module for each library, behind small functions."""
