"""What goes wrong around it: nodes, pods, services and operators that fail. Minutes; `make e2e-full` runs these too."""
