"""The outbox: a table in the site's own database, into which PHP inserts pushes within its own transactions.

When a transaction commits, and only then, the relay publishes its rows and deletes them. Each row is stored once, even
if the relay, the database or the connection between them fails at any moment: `taker.py` shows how.
"""
