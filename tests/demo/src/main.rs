//! The demo application, and the pause process of every pod sandbox.

fn main() {}
