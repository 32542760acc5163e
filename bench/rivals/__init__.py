"""kdrv beside the tools that people use today, in one and the same kernel, under emulation."""
