//! Cloud providers: the trait and the bare-metal provider.
