"""Configurations, each a document: what it trains, the command, the numbers to expect."""
