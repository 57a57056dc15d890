//! The proxy over loopback, with backends and clients of a few lines, so that every byte is in the test's hands.

mod lab;
mod requests;
mod trouble;
mod tunnels;
