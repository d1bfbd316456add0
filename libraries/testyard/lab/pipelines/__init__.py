"""The pipeline scheduling service: runs of customers' pipelines by cron, within the quota of their plan."""
