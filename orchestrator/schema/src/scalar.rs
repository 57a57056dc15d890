//! Scalars: what a JSON scalar must look like to be a time, a quantity, a duration.
