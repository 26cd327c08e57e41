"""Faces of rooms that import a module when one of its names is asked for first (PEP 562).

A room whose modules need much (an HTTP server, a driver, exporters) has such a face, so that a command that takes one
name of it does not load the rest. A type checker reads the plain imports that stand beside the table.
"""

import importlib
import sys
from collections.abc import Callable, Mapping


def by_need(room: str, places: Mapping[str, str]) -> Callable[[str], object]:
    """Return the ``__getattr__`` of a face.

    Args:
        room: the package that the face belongs to.
        places: by name, the module of the room that defines it. A name of a module is that module: once it is loaded,
            Python itself gives the package that attribute.
    """

    def resolve(name: str) -> object:
        if (module := places.get(name)) is None:
            raise AttributeError(f"module {room!r} has no attribute {name!r}", name=name, obj=sys.modules[room])
        found = importlib.import_module(f"{room}.{module}")
        value = found if name == module else getattr(found, name)
        setattr(sys.modules[room], name, value)  # the next time it is an attribute
        return value

    return resolve
