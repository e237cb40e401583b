"""Private and unstable parts of other libraries, one module for each library, behind small functions.

Each says why it is needed, and what to do once the library no longer has what it uses. For each there is a
test in ``tests/test_compat_*.py`` that fails when a new version of the library has changed it.
"""
