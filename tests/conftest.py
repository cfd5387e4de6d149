"""For all tests: none has to be fast, so that none fails on a busy machine."""

import gc

from hypothesis import settings

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

gc.disable()  # while modules are imported: what they make is no garbage


def pytest_collection_finish() -> None:
    gc.freeze()  # nor need it be looked at later: that took a tenth of the time of the tests
    gc.enable()
