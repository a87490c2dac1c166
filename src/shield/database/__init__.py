"""PostgreSQL, the one truth: the embedded server, the engine, the tables and their migrations.

Repositories elsewhere import tables from here and keep the SQL to themselves; nothing above a repository writes SQL.
"""
