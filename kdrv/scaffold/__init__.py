"""What ``kdrv new`` does: buses and options as data, checked names, rendered templates.

``templates`` beside this file leads to the repository's ``templates/`` (its README documents the
layout); an installed package has the files themselves in its place.
"""
