"""The checks behind ``tasks.validator``, one module per concern, standard library only.

``findings`` < ``context`` < ``guards`` < ``bindings`` < ``strings``, ``names`` < ``attributes``, ``calls``:
each imports only what stands before it. ``source`` needs the findings alone.
"""
