//! The data plane: desired state, compiled, compared, applied.
