"""Control's database: the connection, the tables, and how lists are paged."""
