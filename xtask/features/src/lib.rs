//! Nothing but dependencies: the features that the whole workspace uses of each shared dependency, so that every
//! selection of packages builds them once. Written by `cargo hakari generate`; it must never hold code.
