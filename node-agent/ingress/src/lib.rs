//! Ingress routing.
