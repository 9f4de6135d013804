"""The checks behind ``tasks.validator``, one module per concern, standard library only.

``findings`` < ``context`` < ``strings`` < ``guards`` < ``bindings`` < ``scopes``, ``assignments``, ``names`` <
``dispatch``, ``attributes`` < ``calls``: each imports only what stands before it. ``source`` needs the findings alone,
and ``legality`` that and the context.
"""
