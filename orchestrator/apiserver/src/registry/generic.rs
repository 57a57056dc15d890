//! The only CRUD. Each verb has its room; the registry's methods dispatch here.
