//! Memory shared between the kernel programs and user space.
#![no_std]
