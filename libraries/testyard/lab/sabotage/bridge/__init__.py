"""The event bus's services with one defect, each started instead of the one of its name."""
