"""The calls of the API by the names Tinker gives them, grouped as Tinker groups them.

A resource holds nothing but the client it belongs to. Each of its methods is one row of the table of endpoints:
it fills in the path and the query, and leaves everything else to the client.
"""
