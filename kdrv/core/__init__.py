"""What every other package stands on: errors, events, processes, configuration.

Nothing here imports from another package of kdrv.
"""
