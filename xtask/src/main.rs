//! The menu: one verb a file.

fn main() {}
