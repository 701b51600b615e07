"""The contracts of everything that can be added, run by the tests on what is here, and by `check` on what is not."""
