"""What this version looks like. Change a line, commit, push, and watch it travel."""

VERSION = "1"
COLOUR = "#0f766e"
GREETING = "Hello from the towpath"
