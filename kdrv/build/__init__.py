"""Building: lanes of one kernel tree, modules against them, and what compilers said of both."""
