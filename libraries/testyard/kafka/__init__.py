"""Kafka as a test uses it: publish, collect, wait, and look at groups and offsets; aiokafka on one loop thread."""
