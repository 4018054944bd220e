"""Webhooks: the relay tells the site's backend who is online, and what was lost, in signed requests to its URLs."""
