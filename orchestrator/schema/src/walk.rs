//! The walk shared by the decoders.
