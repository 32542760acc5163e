"""Exploring a driver: generated plans in the simulator, properties, a base of bugs.

What a user's own operations file needs is here::

    from hypothesis import strategies as st
    from kdrv.explore import Call, operation

    @operation(value=st.integers(0, 20))
    def factorial(call: Call, value: int) -> int:
        with call.guest.open("/dev/edu0") as dev:
            ...
"""

from kdrv.explore.declare import Call, History, Moment, operation, prop

__all__ = ["Call", "History", "Moment", "operation", "prop"]
