//! The store: the only code that knows a database.
