"""The use cases: what a tool, a route and a command have in common, they call here."""
