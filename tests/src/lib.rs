//! Test harness: cluster, namespaces, packets, golden files, conditions, faults.
