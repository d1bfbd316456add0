"""Workflows of a cluster's life written as JSON: loaded, validated, run, and recorded (document 003)."""
