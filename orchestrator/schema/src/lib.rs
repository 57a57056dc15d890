//! Types as data: the schema table and every operation written once over it.
